"""Python environments of engines that do not live in chaku's: where they are, and the commands that make them.

An environment counts as installed once its record is there, and that is written last.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from chaku import config
from chaku.errors import UsageError
from chaku.nearest import did_you_mean
from chaku.records import atomic_write

_RECORD = "chaku-engine.json"


@dataclass(frozen=True)
class Package:
    """An engine on the package index, in the version that chaku was written for."""

    engine: str
    version: str
    title: str

    @property
    def requirement(self) -> str:
        """As pip takes it."""
        return f"{self.engine}=={self.version}"


PACKAGES = {
    package.engine: package for package in (Package("vllm", "0.32.0", "vLLM"), Package("sglang", "0.5.23", "SGLang"))
}


@dataclass(frozen=True)
class Installed:
    """An environment that chaku made."""

    python: Path
    version: str


def package_of(engine: str) -> Package:
    """Raises UsageError for an engine that has no environment of its own."""
    if engine not in PACKAGES:
        fix = did_you_mean(engine, PACKAGES, f"engines with an environment of their own: {', '.join(PACKAGES)}")
        raise UsageError(f"there is no environment for {engine!r}", fix=fix)
    return PACKAGES[engine]


def folder_of(engine: str) -> Path:
    """Where the environment of an engine is, or will be."""
    return config.cache_dir() / "engines" / engine


def installed(engine: str) -> Installed | None:
    """The environment that `chaku engines install` finished for an engine; None where there is none."""
    folder = folder_of(engine)
    try:
        record = json.loads((folder / _RECORD).read_text())
        found = Installed(_python_in(folder), str(record["version"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.python.is_file() else None


def install_commands(package: Package, python: str | None) -> list[list[str]]:
    """The commands that make an environment and prove it, in order; uv makes it where uv is on the PATH.

    `python` is the interpreter to make it with, by default the one that runs chaku.
    """
    folder, base = folder_of(package.engine), python or sys.executable
    inside = str(_python_in(folder))
    if uv := shutil.which("uv"):
        make = [uv, "venv", "--clear", "--python", base, str(folder)]
        fill = [uv, "pip", "install", "--python", inside, package.requirement]
    else:
        make = [base, "-m", "venv", "--clear", str(folder)]
        fill = [inside, "-m", "pip", "install", package.requirement]
    return [make, fill, [inside, "-c", f"import {package.engine}"]]


def forget(package: Package) -> None:
    """Take the record away before an environment is made anew: half of one must not count."""
    (folder_of(package.engine) / _RECORD).unlink(missing_ok=True)


def record(package: Package) -> Installed:
    """Write the record of an environment whose commands have all succeeded."""
    folder = folder_of(package.engine)
    with atomic_write(folder / _RECORD) as file:
        file.write(json.dumps({"engine": package.engine, "version": package.version}).encode() + b"\n")
    return Installed(_python_in(folder), package.version)


def _python_in(folder: Path) -> Path:
    return folder / "bin" / "python"
