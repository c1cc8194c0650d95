"""One child process of an engine: started in its own session, told its configuration through a pipe, heard through JSON
lines, and gone when its parent goes. `Lifeline` is the child's half and must stay light to import.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import orjson

import chaku
from chaku.errors import EngineError

_log = logging.getLogger(__name__)

_STDERR_LINES = 80
_LINE_LIMIT_BYTES = 1 << 20


def python_argv(module: str) -> list[str]:
    """The command that runs `module.main()` with this Python and this chaku, wherever it was imported from."""
    root = str(Path(chaku.__file__).parents[1])
    return [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {root!r}); from {module} import main; sys.exit(main())",
    ]


class Child:
    """A running child. Make one with `Child.spawn`; `stop` it, or die: either way the process ends."""

    def __init__(self, process: asyncio.subprocess.Process, name: str) -> None:
        self._process = process
        self._name = name
        self.stderr_tail: deque[str] = deque(maxlen=_STDERR_LINES)
        self._drain = asyncio.create_task(self._read_stderr(), name=f"{name}-stderr")

    @classmethod
    async def spawn(cls, argv: Sequence[str], *, config: dict[str, Any], name: str) -> Child:
        """Start `argv` and write `config` as one JSON line to its standard input, which stays open as the lifeline.

        Secrets belong in `config`: a command line can be read by every user of the machine.
        """
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                limit=_LINE_LIMIT_BYTES,
            )
        except OSError as error:
            raise EngineError(f"can't start {argv[0]}: {error.strerror}") from None
        child = cls(process, name)
        assert process.stdin is not None
        process.stdin.write(orjson.dumps({**config, "parent_pid": os.getpid()}) + b"\n")
        with contextlib.suppress(ConnectionError):  # it died at once; whoever waits for its first line sees that
            await process.stdin.drain()
        return child

    @property
    def pid(self) -> int:
        """Process id, also the id of its session and process group."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """False once the process has ended."""
        return self._process.returncode is None

    async def next_message(self) -> dict[str, Any] | None:
        """The next JSON line the child printed; None when it has ended."""
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            with contextlib.suppress(orjson.JSONDecodeError):
                message = orjson.loads(line)
                if isinstance(message, dict):
                    return message
            _log.debug("%s: %s", self._name, line.decode(errors="replace").rstrip())
        return None

    async def wait(self) -> str:
        """Wait for the end of the process; return in words how it ended."""
        code = await self._process.wait()
        if code < 0:
            try:
                return f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"was killed by signal {-code}"
        return f"exited with code {code}"

    async def stop(self, *, patience_s: float = 5.0) -> None:
        """SIGTERM to the process, SIGKILL to its whole group after `patience_s`; safe to call twice."""
        try:
            if self.is_running:
                with contextlib.suppress(ProcessLookupError):
                    self._process.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._process.wait(), patience_s)
        finally:
            self.kill()
        await self._process.wait()
        self._drain.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._drain
        if self._process.stdin is not None:
            self._process.stdin.close()

    def kill(self) -> None:
        """SIGKILL whatever is left of the process group, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    async def _read_stderr(self) -> None:
        assert self._process.stderr is not None
        while True:
            try:
                line = await self._process.stderr.readline()
            except ValueError:  # a line above the limit is dropped; a pipe that nobody empties would stop the child
                continue
            if not line:
                return
            text = line.decode(errors="replace").rstrip()
            self.stderr_tail.append(text)
            _log.debug("%s: %s", self._name, text)


class Lifeline:
    """The child's half: reads the configuration from standard input, then ends the process when the parent is gone.

    The pipe works on every system; on Linux the kernel is asked as well, which holds even while a C call keeps the
    interpreter lock. There the signal follows the parent's *thread*: spawn from one that lives as long as the engine.
    """

    def __init__(self) -> None:
        self.config: dict[str, Any] = orjson.loads(sys.stdin.buffer.readline())
        parent_pid = int(self.config.pop("parent_pid"))
        if sys.platform == "linux":
            set_parent_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
            ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent_pid:
            os._exit(1)
        threading.Thread(target=self._watch, daemon=True, name="lifeline").start()

    @staticmethod
    def _watch() -> None:
        while sys.stdin.buffer.read(1):
            pass
        os._exit(0)

    @staticmethod
    def say(message: dict[str, Any]) -> None:
        """Print one JSON line for the parent."""
        sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
        sys.stdout.buffer.flush()
