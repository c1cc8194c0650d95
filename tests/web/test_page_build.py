"""How the page's libraries are brought: pinned, verified, once. npm is a script here that packs what it is told."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import json
import sys
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]

FILES = {
    "package/LICENSE": b"Do as you like.",
    "package/dist/lib.mjs": b'import{a}from"other";export{a}\n//# sourceMappingURL=lib.mjs.map',
    "package/dist/parts/one.min.js": b"export default 1",
    "package/dist/parts/two.min.js": b"export default 2",
    "package/dist/parts/two.js": b"export default 'long'",
}
NPM = """
import json, pathlib, shutil, sys
pathlib.Path({calls!r}).open("a").write(" ".join(sys.argv[1:]) + "\\n")
if {fails}:
    print("npm error code ENOTFOUND\\nnpm error network is away", file=sys.stderr)
    sys.exit(1)
shutil.copy({tarball!r}, "scope-lib-1.2.3.tgz")
print(json.dumps([{{"name": "@scope/lib", "filename": "scope-lib-1.2.3.tgz"}}]))
"""


class Builder:
    """hatch_build.py over a folder of its own, with an npm that has one package."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
        assert spec is not None and spec.loader is not None
        self.module: ModuleType = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.folder = folder
        self.calls = folder / "calls"
        self.vendor = folder / "static" / "vendor"
        self.pins = folder / "vendor.toml"
        tarball = folder / "lib.tgz"
        with tarfile.open(tarball, "w:gz") as archive:
            for name, content in FILES.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        self.integrity = "sha512-" + base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
        self.pin()
        self.play_npm()
        monkeypatch.setattr(self.module, "PINS", self.pins)
        monkeypatch.setattr(self.module, "VENDOR", self.vendor)
        monkeypatch.setattr(self.module, "_npm", lambda: [sys.executable, str(folder / "npm.py")])

    def pin(self, **changes: str) -> None:
        fields = {
            "version": "1.2.3",
            "integrity": self.integrity,
            "licence": "MIT",
            "licence_file": "LICENSE",
            **changes,
        }
        lines = ['["@scope/lib"]', *(f"{name} = {json.dumps(value)}" for name, value in fields.items())]
        lines += ['files = { "dist/lib.mjs" = "lib.js", "dist/parts/" = "parts/" }', 'suffix = ".min.js"']
        lines += ['imports = { "other" = "./other.js" }', 'append = { "lib.js" = "export default a;" }']
        self.pins.write_text("\n".join(lines))

    def play_npm(self, *, fails: bool = False) -> None:
        script = NPM.format(calls=str(self.calls), tarball=str(self.folder / "lib.tgz"), fails=fails)
        (self.folder / "npm.py").write_text(script)

    def num_calls(self) -> int:
        return len(self.calls.read_text().splitlines()) if self.calls.exists() else 0


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    return Builder(tmp_path, monkeypatch)


def test_what_is_pinned_is_brought_with_its_licence_and_nothing_else(builder: Builder) -> None:
    builder.module.fetch()
    written = {path.relative_to(builder.vendor).as_posix() for path in builder.vendor.rglob("*") if path.is_file()}
    assert written == {"lib.js", "parts/one.js", "parts/two.js", "licences/scope-lib.txt", "manifest.json"}
    assert (builder.vendor / "lib.js").read_bytes() == b'import{a}from"./other.js";export{a}\nexport default a;\n'
    assert builder.calls.read_text() == "pack --json --ignore-scripts --loglevel=error @scope/lib@1.2.3\n"
    assert [path.name for path in builder.vendor.parent.iterdir()] == ["vendor"]


def test_what_is_there_and_right_is_not_brought_again(builder: Builder) -> None:
    builder.module.fetch()
    builder.module.fetch()
    assert builder.num_calls() == 1
    (builder.vendor / "parts" / "one.js").write_text("changed")
    builder.module.fetch()
    assert (builder.num_calls(), (builder.vendor / "parts" / "one.js").read_text()) == (2, "export default 1")
    builder.pin(licence="ISC")
    builder.module.fetch()
    assert builder.num_calls() == 3


def test_a_package_that_is_not_the_pinned_one_is_refused_and_what_was_there_stays(builder: Builder) -> None:
    builder.module.fetch()
    builder.pin(integrity="sha512-" + "A" * 86 + "==")
    with pytest.raises(
        builder.module.PageError, match=r"@scope/lib@1\.2\.3 has sha512-.*, vendor\.toml pins sha512-AAA"
    ):
        builder.module.fetch()
    assert (builder.vendor / "lib.js").exists()
    assert [path.name for path in builder.vendor.parent.iterdir()] == ["vendor"]


def test_an_npm_that_reaches_nothing_is_explained_with_a_way_out(builder: Builder) -> None:
    builder.play_npm(fails=True)
    with pytest.raises(builder.module.PageError) as caught:
        builder.module.fetch()
    assert "(code ENOTFOUND; network is away)" in str(caught.value)
    assert "CHAKU_BUILD_WITHOUT_PAGE=1" in str(caught.value)


def test_the_pins_name_exact_versions_and_no_host() -> None:
    import tomllib

    text = (ROOT / "src" / "chaku" / "web" / "vendor.toml").read_text()
    assert "://" not in text
    for name, package in tomllib.loads(text).items():
        assert package["version"].replace(".", "").isdigit(), name
        assert package["integrity"].startswith("sha512-") and len(package["integrity"]) == 95, name
