"""GIF: blocks up to the trailer. Comments and all application data but the number of repeats are left out."""

from __future__ import annotations

from chaku.images.parts import Image, damaged, take

_EXTENSION, _FRAME, _TRAILER = 0x21, 0x2C, 0x3B
_COMMENT, _APPLICATION = 0xFE, 0xFF
_REPEATS = (b"NETSCAPE2.0", b"ANIMEXTS1.0")


def read(content: bytes) -> Image:
    """Measure and clean. Raises InvalidRequest."""
    head = take(content, 0, 13, "its header")
    width, height = int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    at = 13 + _palette_bytes(head[10])
    kept = [content[:at]]
    num_frames = 0
    while True:
        start, kind = at, take(content, at, 1, "a block")[0]
        if kind == _TRAILER:
            break
        if kind == _FRAME:
            frame = take(content, at, 10, "a frame")
            width = max(width, int.from_bytes(frame[5:7], "little"))
            height = max(height, int.from_bytes(frame[7:9], "little"))
            num_frames += 1
            at = _after(content, at + 11 + _palette_bytes(frame[9]))
            kept.append(content[start:at])
        elif kind == _EXTENSION:
            label = take(content, at + 1, 1, "a block")[0]
            at = _after(content, at + 2)
            is_foreign = label == _APPLICATION and content[start + 3 : start + 14] not in _REPEATS
            if label != _COMMENT and not is_foreign:
                kept.append(content[start:at])
        else:
            raise damaged("a block is of no known kind")
    if not num_frames:
        raise damaged("it has no pixels")
    if not (width and height):
        raise damaged("it has no size")
    return Image("image/gif", width, height, num_frames, b"".join([*kept, bytes((_TRAILER,))]))


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _after(content: bytes, at: int) -> int:
    """The place after a row of sub-blocks."""
    while length := take(content, at, 1, "a block")[0]:
        at += 1 + length
    return at + 1
