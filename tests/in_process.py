"""A command of chaku in the tests' own process: a second Python would cost more than most commands do."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
from collections.abc import Iterator, Mapping

from click.testing import CliRunner

from chaku.cli.main import main

_QUIETENED = ("uvicorn.access", "uvicorn.error", "asyncio", "alembic")


def run_here(*arguments: str, env: Mapping[str, str], piped: str = "") -> subprocess.CompletedProcess[str]:
    """Run one command line to its end, with `env` as the whole environment and `piped` on standard input.

    What is about a process (signals, limits, a terminal, a pipe that breaks, what is imported) starts one instead.
    """
    code = 0
    with _logging_kept(), CliRunner().isolation(piped, {**dict.fromkeys(os.environ), **env}) as (stdout, stderr, _):
        try:
            main(arguments)
        except SystemExit as end:
            assert isinstance(end.code, int)
            code = end.code
        said, complained = stdout.getvalue().decode(), stderr.getvalue().decode()
    return subprocess.CompletedProcess(arguments, code, said, complained)


@contextlib.contextmanager
def _logging_kept() -> Iterator[None]:
    """Undo what `chaku.logs.set_up` does, which belongs to a program."""
    root = logging.getLogger()
    handlers, levels = root.handlers[:], {name: logging.getLogger(name).level for name in ("root", *_QUIETENED)}
    try:
        yield
    finally:
        root.handlers[:] = handlers
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
