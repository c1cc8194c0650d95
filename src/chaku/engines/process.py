"""One child process of an engine. It runs in its own session, reads its configuration from a pipe, writes JSON lines,
and ends when its parent ends. `Lifeline` is the child's half and must stay light to import.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import re
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import orjson

import chaku
from chaku.errors import EngineError

_log = logging.getLogger(__name__)

_TAIL_LINES = 80
_MOST_LINE_BYTES = 1 << 20
_MOST_MESSAGES = 64
"""Unread messages that are kept, so that a child that prints much JSON does not fill the parent's memory."""
_LAST_LINES_S = 0.5
"""`wait` gives a process that has ended so long for its last lines; a grandchild may hold the pipe open."""
_TELLING = re.compile(r"error|fail|abort| E ", re.IGNORECASE)


def python_argv(module: str) -> list[str]:
    """The command that runs `module.main()` with this Python and this chaku, wherever it was imported from."""
    root = str(Path(chaku.__file__).parents[1])
    return [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {root!r}); from {module} import main; sys.exit(main())",
    ]


class _Output(asyncio.SubprocessProtocol):
    """The output of a child, and its end.

    Both pipes are read as fast as data comes, so that a full one never stops the child. `process_exited` is called when
    the process ends, even if a grandchild holds a pipe open; asyncio's own `Process.wait` would wait for that too.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._rest = {1: b"", 2: b""}
        self.tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self.messages: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        self.has_ended = asyncio.Event()
        self.pipes_closed = asyncio.Event()
        self._open_pipes = {1, 2}
        self._transport: asyncio.BaseTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        *lines, rest = (self._rest[fd] + data).split(b"\n")
        for line in lines:
            if len(line) <= _MOST_LINE_BYTES:
                self._take(fd, line)
        self._rest[fd] = rest[: _MOST_LINE_BYTES + 1]  # too long already: dropped at its end

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd not in self._open_pipes:  # standard input
            return
        if self._rest[fd]:
            self._take(fd, self._rest[fd])
        self._open_pipes.discard(fd)
        if fd == 1:
            self.messages.put_nowait(None)
        if not self._open_pipes:
            self.pipes_closed.set()
            self._close_at_the_end()

    def process_exited(self) -> None:
        self.has_ended.set()
        self._close_at_the_end()

    def _close_at_the_end(self) -> None:
        if self._transport is not None and self.has_ended.is_set() and not self._open_pipes:
            self._transport.close()

    def _take(self, fd: int, line: bytes) -> None:
        if fd == 1 and line.startswith(b"{") and self.messages.qsize() < _MOST_MESSAGES:
            with contextlib.suppress(orjson.JSONDecodeError):
                self.messages.put_nowait(orjson.loads(line))
                return
        text = line.decode(errors="replace").rstrip()
        self.tail.append(text)
        _log.debug("%s: %s", self._name, text)


class Child:
    """A running child. Make one with `Child.spawn`. `stop` ends it; so does the end of this process."""

    def __init__(self, transport: asyncio.SubprocessTransport, output: _Output) -> None:
        self._transport = transport
        self._output = output
        self.pid = transport.get_pid()
        """Process id, also the id of its session and process group."""
        self.tail = output.tail
        """The last lines of its standard error, and those of its standard output that are not messages."""

    @classmethod
    async def spawn(
        cls, argv: Sequence[str], *, config: dict[str, Any], name: str, env: Mapping[str, str] | None = None
    ) -> Child:
        """Start `argv` and write `config` as one JSON line to its standard input, which stays open as the lifeline.

        `env` is added to this process's environment. Secrets belong in `config`: every user of the machine can read a
        command line. Raises EngineError if the command can't be started.
        """
        try:
            transport, output = await asyncio.get_running_loop().subprocess_exec(
                lambda: _Output(name), *argv, start_new_session=True, env={**os.environ, **(env or {})}
            )
        except OSError as error:
            raise EngineError(f"can't start {argv[0]}: {error.strerror}") from None
        stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))  # uvloop's is not a subclass of it
        stdin.write(orjson.dumps({**config, "parent_pid": os.getpid()}) + b"\n")
        return cls(transport, output)

    def send(self, message: dict[str, Any]) -> None:
        """Write one JSON line to its standard input; for children that read on after their configuration."""
        stdin = cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))
        stdin.write(orjson.dumps(message) + b"\n")

    @property
    def is_running(self) -> bool:
        """False once the process has ended."""
        return self._transport.get_returncode() is None

    async def next_message(self) -> dict[str, Any] | None:
        """The next JSON object that the child printed on a line; None when it has closed its standard output."""
        message = await self._output.messages.get()
        if message is None:
            self._output.messages.put_nowait(None)  # for the next caller
        return message

    async def wait(self) -> str:
        """Wait for the end of the process; return in words how it ended. `tail` then holds its last lines."""
        await self._output.has_ended.wait()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._output.pipes_closed.wait(), _LAST_LINES_S)
        code = self._transport.get_returncode()
        assert code is not None
        if code < 0:
            try:
                return f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"was killed by signal {-code}"
        return f"exited with code {code}"

    def last_words(self) -> str | None:
        """The last line in `tail` that looks like a reason, at most 300 characters; None if no line does."""
        telling = [line for line in self.tail if _TELLING.search(line)]
        return telling[-1].strip()[:300] if telling else None

    async def stop(self, *, patience_s: float = 5.0) -> None:
        """SIGTERM to the process, SIGKILL to its whole group after `patience_s`; safe to call twice."""
        try:
            if self.is_running:
                with contextlib.suppress(ProcessLookupError):
                    self._transport.terminate()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._output.has_ended.wait(), patience_s)
            self.kill()
            await self._output.has_ended.wait()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._output.pipes_closed.wait(), _LAST_LINES_S)
        finally:
            self.kill()
            self._transport.close()

    def kill(self) -> None:
        """SIGKILL whatever is left of the process group, at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


class Lifeline:
    """The child's half: reads the configuration from standard input, then ends the process when the parent is gone.

    The pipe works on every system. On Linux the kernel is asked as well: that works even while a C call holds the
    interpreter lock. The kernel watches the parent's *thread*: spawn from one that lives as long as the engine.
    """

    def __init__(self) -> None:
        self.config, parent_pid = read_config()
        die_with_parent(parent_pid)
        threading.Thread(target=wait_for_end_of_parent, args=(os._exit,), daemon=True, name="lifeline").start()

    @staticmethod
    def say(message: dict[str, Any]) -> None:
        """Print one JSON line for the parent."""
        sys.stdout.buffer.write(orjson.dumps(message) + b"\n")
        sys.stdout.buffer.flush()


def read_config() -> tuple[dict[str, Any], int]:
    """The configuration that `Child.spawn` wrote to standard input, and the parent's process id.

    Reads byte by byte, so that nothing is buffered when the process forks.
    """
    line = b""
    while not line.endswith(b"\n") and (byte := os.read(0, 1)):
        line += byte
    config: dict[str, Any] = orjson.loads(line)
    return config, int(config.pop("parent_pid"))


def die_with_parent(parent_pid: int) -> None:
    """Have Linux kill this process when its parent ends; exit now if the parent has ended already."""
    if sys.platform == "linux":
        set_parent_death_signal = 1  # PR_SET_PDEATHSIG, prctl(2)
        ctypes.CDLL(None, use_errno=True).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(1)


def wait_for_end_of_parent(end: Callable[[int], object]) -> None:
    """Block until the parent closes standard input, as its death does, then call `end(0)`."""
    while os.read(0, 4096):
        pass
    end(0)
