"""Files that go into a message: texts as fenced blocks below their names, images as parts without metadata."""

from __future__ import annotations

import base64
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaku.complaints import not_utf8
from chaku.errors import InvalidRequest, UsageError
from chaku.images.data_url import clean

_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})

_LONGEST_LINE = 4096
"""Characters of file names that a terminal types at once; more is a message."""


@dataclass(frozen=True)
class AttachedImage:
    """An image that waits for its message."""

    name: str
    """What a person is told of it."""
    url: str


@dataclass(frozen=True)
class Attached:
    """The files of a message."""

    text: str = ""
    images: tuple[AttachedImage, ...] = ()

    @property
    def names(self) -> str:
        """In a line; "" where there is nothing."""
        return ", ".join(filter(None, (self.text.partition(":")[0], *(image.name for image in self.images))))


def read(files: Sequence[Path]) -> Attached:
    """All files, in order. Raises UsageError for one that can't be read, or is neither UTF-8 text nor an image."""
    texts = [_block(path) for path in files if path.suffix.lower() not in _SUFFIXES]
    return Attached("\n\n".join(texts), tuple(read_image(path) for path in files if path.suffix.lower() in _SUFFIXES))


def read_image(path: Path) -> AttachedImage:
    """An image. Raises UsageError."""
    if path.exists() and not path.is_file():
        raise UsageError(f"{path} is no file", fix="name an image file")
    try:
        image = clean(path.read_bytes())
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", fix="check the name of the file") from None
    except InvalidRequest as error:
        raise UsageError(f"{path}: {error.message}", fix=error.fix) from None
    size = f"{len(image.content) / 1e6:.1f} MB" if len(image.content) >= 1e6 else f"{len(image.content) / 1e3:.0f} kB"
    name = f"{path.name} ({image.width} x {image.height}, {size})"
    return AttachedImage(name, f"data:{image.media_type};base64,{base64.b64encode(image.content).decode()}")


def dropped_images(typed: str) -> list[Path]:
    """The images that a line names and nothing else, as a terminal types files that are dropped on it."""
    if len(typed) > _LONGEST_LINE:
        return []
    try:
        paths = [Path(word.removeprefix("file://")).expanduser() for word in shlex.split(typed)]
        are_images = [path.suffix.lower() in _SUFFIXES and path.is_file() for path in paths]
    except (ValueError, OSError):  # an apostrophe; a line too long for a name
        return []
    return paths if all(are_images) else []


def check_sees(model: str, row: Mapping[str, Any]) -> None:
    """Refuse images for a model of which the server says that it reads text only. Raises UsageError."""
    abilities = row.get("capabilities")
    if isinstance(abilities, list) and abilities and "vision" not in abilities:
        raise UsageError(f"{model} can't see images: it reads text only", fix="choose a model that sees: chaku models")


def _block(path: Path) -> str:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"can't read {path}: {error.strerror}", fix="check the name of the file") from None
    except UnicodeDecodeError as error:
        fix = "name a text file, or a PNG, JPEG, WebP or GIF"
        raise UsageError(not_utf8(str(path), error), fix=fix) from None
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", text)), default=0))  # longer than any inside
    body = text.rstrip("\n")
    return f"{path.name}:\n{fence}{path.suffix[1:]}\n{body}\n{fence}"
