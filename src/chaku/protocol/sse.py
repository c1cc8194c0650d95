"""Server-sent events, read as they arrive. After the HTML standard, 9.2.6; knows nothing of what they carry."""

from __future__ import annotations

from dataclasses import dataclass

from chaku.errors import EngineError

MAX_EVENT_BYTES = 16 << 20
CR, LF = b"\r\n"
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One event: its `data:` lines joined by newlines, and its `event:` name ("message" where none was sent)."""

    data: str
    name: str = "message"


class Parser:
    """Bytes in, events out; a piece may end anywhere, inside a character or between CR and LF too.

    An event is complete at its empty line. What is left when the bytes end is dropped, as the standard asks: the caller
    sees it by the missing last event. `id:` and `retry:` are for reconnecting, which nobody here does.
    """

    def __init__(self, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._buffer = bytearray()
        self._searched = 0  # bytes of the buffer known to hold no line end
        self._at_start = True
        self._after_cr = False
        self._data: list[bytes] = []
        self._name = ""
        self._event_bytes = 0

    def feed(self, piece: bytes) -> list[SseEvent]:
        """The events that this piece completes. Raises EngineError when one event is larger than the limit."""
        self._buffer += piece
        if self._at_start and not self._skip_bom():
            return []
        events = []
        start = self._skip_line_feed(0)
        while (end := self._line_end(start)) >= 0:
            line = bytes(self._buffer[start:end])
            self._event_bytes += len(line)
            if event := self._take(line):
                events.append(event)
            self._after_cr = self._buffer[end] == CR
            start = self._searched = self._skip_line_feed(end + 1)
        del self._buffer[:start]
        self._searched = len(self._buffer)
        if len(self._buffer) + self._event_bytes > self._max_event_bytes:
            raise EngineError(f"a server-sent event is longer than {self._max_event_bytes:,} bytes")
        return events

    def _skip_bom(self) -> bool:
        if len(self._buffer) < len(_BOM) and _BOM.startswith(self._buffer):
            return False
        if self._buffer.startswith(_BOM):
            del self._buffer[: len(_BOM)]
        self._at_start = False
        return True

    def _skip_line_feed(self, start: int) -> int:
        """A LF right after a CR ends no line of its own; it may come with the next piece."""
        if not self._after_cr or start == len(self._buffer):
            return start
        self._after_cr = False
        return start + 1 if self._buffer[start] == LF else start

    def _line_end(self, start: int) -> int:
        search = max(start, self._searched)
        line_feed = self._buffer.find(LF, search)
        carriage_return = self._buffer.find(CR, search, line_feed if line_feed >= 0 else len(self._buffer))
        return carriage_return if carriage_return >= 0 else line_feed

    def _take(self, line: bytes) -> SseEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"data":
            self._data.append(value)
        elif name == b"event":
            self._name = value.decode("utf-8", "replace")
        return None

    def _dispatch(self) -> SseEvent | None:
        event = None
        if self._data:
            event = SseEvent(b"\n".join(self._data).decode("utf-8", "replace"), self._name or "message")
        self._data = []
        self._name = ""
        self._event_bytes = 0
        return event
