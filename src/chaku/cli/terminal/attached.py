"""Files that go into a message: each as a fenced block below its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from chaku.errors import UsageError


def as_text(files: Sequence[Path]) -> str:
    """All files, in order. Raises UsageError for one that can't be read or is not UTF-8 text."""
    return "\n\n".join(_block(path) for path in files)


def _block(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", fix="check the name of the file") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text: byte {error.start} is none", fix="name a text file") from None
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))  # longer than any inside
    body = text.rstrip("\n")
    return f"{path.name}:\n{fence}{path.suffix[1:]}\n{body}\n{fence}"
