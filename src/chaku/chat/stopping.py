"""Stop strings in streamed text, across chunk borders, holding back only what may still become one."""

from __future__ import annotations

from collections.abc import Sequence

from chaku.errors import InvalidRequest


class StopStrings:
    """Passes text through until a stop string is complete. How the text is cut into chunks makes no difference.

    The stop string that is complete first ends the text; among those that end together, the longest. It is not
    part of the text.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        if "" in stops:
            raise InvalidRequest("a stop string is empty", fix="leave it out", param="stop")
        self._stops = tuple(stops)
        self._held = ""
        self.stopped_by: str | None = None
        """The stop string that ended the text."""

    def push(self, text: str) -> str:
        """The text that may be shown now. After a stop: nothing."""
        if self.stopped_by is not None:
            return ""
        text = self._held + text
        found = [(start + len(stop), start, stop) for stop in self._stops if (start := text.find(stop)) >= 0]
        if found:
            _, start, self.stopped_by = min(found)
            self._held = ""
            return text[:start]
        num_held = max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[len(text) - num_held :]
        return text[: len(text) - num_held]

    def flush(self) -> str:
        """What is still held back, at the end of the text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    for length in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:length]):
            return length
    return 0
