"""A stream that sends a word every few milliseconds, watched for its longest pause while something else happens."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hostile_bodies import CHAT, Hostile

SCRIPT = """
replies:
  - {match: steady, text: "WORDS", token_delay_s: 0.004}
  - {text: ok}
slots: 64
context: 1000000
"""
TIMEOUT_S = 60.0


def write_script(folder: Path) -> Path:
    """The script of the engine behind it: ten minutes of words."""
    file = folder / "steady.yaml"
    file.write_text(SCRIPT.replace("WORDS", "w " * 150_000))
    return file


@dataclass
class SteadyStream:
    """The pauses between the pieces of a running stream."""

    longest_s: float = 0.0
    num_pieces: int = 0
    _last: float = 0.0
    _is_over: bool = False

    def reset(self) -> None:
        """Forget the pauses so far, and wait until the stream flows again."""
        seen = self.num_pieces
        while self.num_pieces < seen + 3:
            time.sleep(0.002)
        self.longest_s = 0.0

    def pause_s(self) -> float:
        """The longest pause since `reset`, one that still goes on included."""
        return max(self.longest_s, time.perf_counter() - self._last)

    def _read(self, connection: socket.socket) -> None:
        self._last = time.perf_counter()
        try:
            while not self._is_over and connection.recv(65536):
                now = time.perf_counter()
                self.longest_s = max(self.longest_s, now - self._last)
                self._last = now
                self.num_pieces += 1
        except ConnectionError:
            if not self._is_over:  # our own end resets it where something was not read yet
                raise


@contextlib.contextmanager
def steady_stream(port: int) -> Iterator[SteadyStream]:
    """A stream of the gateway at `port` until the block ends."""
    body = json.dumps({"model": "scripted", "stream": True, "messages": [{"role": "user", "content": "steady"}]})
    stream = SteadyStream()
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        connection.sendall(_request(CHAT, body.encode(), ""))
        reader = threading.Thread(target=stream._read, args=(connection,), daemon=True)
        reader.start()
        try:
            yield stream
        finally:
            stream._is_over = True
            connection.shutdown(socket.SHUT_RDWR)
            reader.join(TIMEOUT_S)


def request_of(hostile: Hostile, size: int) -> bytes:
    """The whole request, a little smaller than `size` bytes, so that it is not refused by its length alone.

    Make it before anything is measured: it takes time in this process.
    """
    return _request(hostile.path, hostile.make(size - (64 << 10)), hostile.encoding)


def send(port: int, request: bytes) -> tuple[int, str]:
    """Send one request; status, and the beginning of the answer."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT_S) as connection:
        answer = b""
        with contextlib.suppress(ConnectionError):  # it may refuse and close before everything is sent
            connection.sendall(request)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(65536):
                answer += piece
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]) if head else 0, body.decode(errors="replace")[:200]


def _request(path: str, body: bytes, encoding: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Connection: close",
        f"Content-Length: {len(body)}",
        *([f"Content-Encoding: {encoding}"] if encoding else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def memory_bytes(pid: int, *, peak: bool) -> int:
    """Resident memory of a process, now or at its peak since `reset_peak`."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:" if peak else "VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"no memory figures of {pid}")


def reset_peak(pid: int) -> None:
    """Begin a new peak."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
