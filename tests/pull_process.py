"""Pulling in a process of its own, for tests that kill it, race it, or give it another environment."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

SOURCES = Path(__file__).parents[1] / "src"

# The command's own way, without the command line: errors become one line and an exit code.
PULL = """
import sys
from chaku.errors import ChakuError
from chaku.models.fetch.pull import pull
from chaku.models.reference import parse
try:
    print(pull(parse(sys.argv[1]).reference).path)
except ChakuError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def start_pull(source: str, environment: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
    """Pull in a process of its own, which leads its own process group."""
    return subprocess.Popen(
        [sys.executable, "-c", PULL, source],
        env=os.environ | {"PYTHONPATH": str(SOURCES)} | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
