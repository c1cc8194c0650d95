"""Empty environments and our built wheel in them: what somebody has who never saw this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from chaku_server import chaku_environment
from processes import PATIENCE_S

ROOT = Path(__file__).parent.parent
OFFLINE = ("No matching distribution found", "NewConnectionError", "NameResolutionError")


def pip(python: Path | str, *arguments: str, constrained: bool = True) -> None:
    """Run pip, with our constraints where it installs. Skips the test where no package index is in reach."""
    constraints = ROOT / "constraints.txt"
    is_held = constrained and constraints.exists() and arguments[0] == "install"
    held = ("--constraint", str(constraints)) if is_held else ()
    command = [str(python), "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check", *held]
    done = subprocess.run(command, capture_output=True, text=True)
    if "CI" not in os.environ and any(sign in done.stderr for sign in OFFLINE):
        pytest.skip("no package index is in reach")
    assert done.returncode == 0, done.stderr


def build_wheel(folder: Path) -> Path:
    """Build chaku's wheel into `folder`."""
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (found,) = folder.glob("chaku-*.whl")
    return found


def interpreter(version: str) -> str | None:
    """A Python of that version (such as "3.12") that can make environments: on PATH, or one that pyenv keeps."""
    kept = sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"))
    for candidate in (shutil.which(f"python{version}"), *map(str, reversed(kept))):
        works = "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"
        if candidate:
            done = subprocess.run([candidate, "-c", works], capture_output=True, text=True)
            if done.returncode == 0 and done.stdout.strip() == version:
                return candidate
    return None


@dataclass(frozen=True)
class EmptyEnvironment:
    """A virtual environment that holds pip alone until something is installed."""

    folder: Path

    @classmethod
    def make(cls, folder: Path, python: str = sys.executable) -> EmptyEnvironment:
        """Make it with that interpreter."""
        subprocess.run([python, "-m", "venv", str(folder)], check=True)
        return cls(folder)

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    @property
    def program(self) -> str:
        """Its `chaku`."""
        return str(self.folder / "bin" / "chaku")

    def install(self, *requirements: str, constrained: bool = True) -> None:
        """`pip install` these, in the versions of constraints.txt unless told otherwise."""
        pip(self.python, "install", *requirements, constrained=constrained)

    def chaku(
        self, home: Path, *arguments: str, timeout_s: float = 3 * PATIENCE_S, **extra: str
    ) -> subprocess.CompletedProcess[str]:
        """Run one command in the folder `home`."""
        return subprocess.run(
            [self.program, *arguments],
            env=alone(home, **extra),
            cwd=home,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_s,
        )


def alone(home: Path, **extra: str) -> dict[str, str]:
    """The environment variables of somebody who has no checkout."""
    return {key: value for key, value in chaku_environment(home, **extra).items() if key != "PYTHONPATH"}
