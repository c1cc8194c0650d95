"""Text for a terminal of any width: long lines are wrapped between words."""

from __future__ import annotations

import shutil
import textwrap

_HANGING = "  "


def wrapped(text: str) -> str:
    """The text's lines; what does not fit the terminal goes on, a little further in, on the next line."""
    width = shutil.get_terminal_size().columns
    return "\n".join(_wrapped(line, width) for line in text.split("\n"))


def _wrapped(line: str, width: int) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line, width, subsequent_indent=indent + _HANGING, break_long_words=False, break_on_hyphens=False
    )
