"""Python in a process of its own, for tests of what happens between processes."""

import os
import subprocess
import sys
from pathlib import Path

import chaku


def run_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a Python on `code`, with chaku importable and warnings as errors; its three streams are pipes."""
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(Path(chaku.__file__).parent.parent)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
