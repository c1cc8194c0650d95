"""What the readers of all formats share: the measured and cleaned image, and bounded reads."""

from __future__ import annotations

from dataclasses import dataclass

from chaku.errors import InvalidRequest


@dataclass(frozen=True)
class Image:
    """An image without metadata."""

    media_type: str
    """Read from its first bytes, never from a name: image/jpeg, image/png, image/webp or image/gif."""
    width: int
    height: int
    """In pixels, before any rotation. Of several frames, the largest."""
    num_frames: int
    content: bytes
    """The file, with the same pixels as before."""

    @property
    def num_pixels(self) -> int:
        """What a reader decodes at most: all frames."""
        return self.width * self.height * self.num_frames


def damaged(reason: str) -> InvalidRequest:
    """The error for a file that breaks the rules of its format."""
    return InvalidRequest(f"the image is damaged: {reason}", fix="save it again as PNG or JPEG", code="invalid_image")


def take(content: bytes, start: int, length: int, what: str) -> bytes:
    """A slice that must be there. Raises InvalidRequest."""
    piece = content[start : start + length]
    if len(piece) < length:
        raise damaged(f"it ends within {what}")
    return piece
