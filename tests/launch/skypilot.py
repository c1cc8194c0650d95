"""SkyPilot in an environment of its own: it wants an older click than ours."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SKYPILOT = "skypilot==0.14.1"
OFFLINE = ("No matching distribution found", "NewConnectionError", "NameResolutionError")


@pytest.fixture(scope="session")
def skypilot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python with SkyPilot, which wants an older click than ours."""
    folder = tmp_path_factory.mktemp("sky") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    install = [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile", SKYPILOT]
    done = subprocess.run(install, capture_output=True, text=True)
    if "CI" not in os.environ and any(sign in done.stderr for sign in OFFLINE):
        pytest.skip("no package index is in reach")
    assert done.returncode == 0, done.stderr
    return python
