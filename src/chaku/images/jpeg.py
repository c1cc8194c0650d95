"""JPEG: segments up to the end of the image. Kept: what a decoder needs, and the colour profile."""

from __future__ import annotations

from chaku.images.orientation import EXIF, UPRIGHT, orientation_of, tiff_with
from chaku.images.parts import Image, damaged, take

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_SCAN, _COMMENT = 0xDA, 0xFE
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # T.81, table B.1: the SOF markers
_ALONE = frozenset({0x01, *range(0xD0, 0xD8)})  # markers without a length
_APP0, _APP1, _APP2, _APP14, _APP15 = 0xE0, 0xE1, 0xE2, 0xEE, 0xEF
_JFIF, _PROFILE, _ADOBE = b"JFIF\0", b"ICC_PROFILE\0", b"Adobe"
_JFIF_BYTES = 14
"""Of the segment's content; a thumbnail follows, which may show more than the picture."""


def read(content: bytes) -> Image:
    """Measure and clean. What follows the end, such as a phone's video, is left out. Raises InvalidRequest."""
    kept: list[bytes] = [_SOI]
    width = height = 0
    orientation = UPRIGHT
    at = len(_SOI)
    while at < len(content):
        marker, at = _marker(content, at)
        if marker == _EOI[1]:
            kept.append(_EOI)
            break
        if marker in _ALONE:
            kept.append(bytes((0xFF, marker)))
            continue
        length = int.from_bytes(take(content, at, 2, "a segment"), "big")
        if length < 2:
            raise damaged("a segment has no length")
        body = take(content, at + 2, length - 2, "a segment")
        at += length
        if marker == _APP1 and body.startswith(EXIF):
            orientation = orientation_of(body[len(EXIF) :])
        if marker in _FRAMES:
            if len(body) < 5:
                raise damaged("it has no size")
            height = max(height, int.from_bytes(body[1:3], "big"))
            width = max(width, int.from_bytes(body[3:5], "big"))
        if (needed := _needed(marker, body)) is not None:
            kept.append(_segment(marker, needed))
        if marker == _SCAN:
            end = _end_of_scan(content, at)
            kept.append(content[at:end])
            at = end
    if not (width and height):
        raise damaged("it has no size")
    if orientation != UPRIGHT:
        after = 2 if kept[1].startswith(bytes((0xFF, _APP0))) else 1
        kept.insert(after, _segment(_APP1, EXIF + tiff_with(orientation)))
    return Image("image/jpeg", width, height, 1, b"".join(kept))


def _marker(content: bytes, at: int) -> tuple[int, int]:
    """The marker at a place, and the place after it; any number of 0xFF may stand before it."""
    if content[at] != 0xFF:
        raise damaged("a marker is missing")
    while at < len(content) and content[at] == 0xFF:
        at += 1
    return take(content, at, 1, "a marker")[0], at + 1


def _needed(marker: int, body: bytes) -> bytes | None:
    """What is kept of a segment; None: nothing."""
    if marker == _APP0:  # without the thumbnail: its two sizes are 0
        return body[: _JFIF_BYTES - 2] + b"\0\0" if body.startswith(_JFIF) and len(body) >= _JFIF_BYTES else None
    if marker == _APP2:
        return body if body.startswith(_PROFILE) else None
    if marker == _APP14:
        return body if body.startswith(_ADOBE) else None
    return None if marker == _COMMENT or _APP0 < marker <= _APP15 else body


def _segment(marker: int, body: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(body) + 2).to_bytes(2, "big") + body


def _end_of_scan(content: bytes, start: int) -> int:
    """The place of the marker after entropy-coded data, in which 0xFF is followed by 0 or a restart marker."""
    at = start
    while (at := content.find(0xFF, at)) >= 0:
        following = content[at + 1 : at + 2]
        if not following:
            break
        if following[0] == 0xFF:
            at += 1
        elif following[0] == 0 or following[0] in _ALONE:
            at += 2
        else:
            return at
    return len(content)
