"""A program on a real pseudo-terminal: type at it, wait for what it shows."""

import contextlib
import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time

from processes import PATIENCE_S

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>]|[\r\x07]")


class Terminal:
    def __init__(self, command, env, rows=40, columns=100):
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        sized = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}  # this one has a size
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**sized, "TERM": "xterm-256color", "PROMPT_TOOLKIT_NO_CPR": "1"},
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        self.raw = b""
        self._seen = 0

    @property
    def text(self):
        """All that was shown, without control sequences."""
        return _CONTROL.sub("", self.raw.decode("utf-8", "replace"))

    def send(self, text):
        os.write(self._master, text.encode())

    def expect(self, wanted, timeout_s=PATIENCE_S):
        """Wait for `wanted` after what was last waited for."""
        deadline = time.monotonic() + timeout_s
        while (found := self.text.find(wanted, self._seen)) < 0:
            left = deadline - time.monotonic()
            assert left > 0 and self._read(left), f"{wanted!r} did not come after {self.text[self._seen :]!r}"
        self._seen = found + len(wanted)

    def wait(self, timeout_s=PATIENCE_S):
        """The exit code; reads what comes until then."""
        deadline = time.monotonic() + timeout_s
        while self.process.poll() is None and time.monotonic() < deadline:
            self._read(0.1)
        while self._read(0):
            pass
        return self.process.wait(1)

    def _read(self, timeout_s):
        if not select.select([self._master], [], [], timeout_s)[0]:
            return False
        try:
            piece = os.read(self._master, 65536)
        except OSError:  # EIO: nobody holds the other end any more
            return False
        self.raw += piece
        return bool(piece)

    def close(self):
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self._master)
