"""WebP: the chunks of a RIFF file. Kept: frames, transparency, animation and the colour profile."""

from __future__ import annotations

from collections.abc import Iterator

from chaku.images.orientation import EXIF, UPRIGHT, orientation_of, tiff_with
from chaku.images.parts import Image, damaged, take

START = b"RIFF"
KIND = b"WEBP"
_HAS_EXIF, _HAS_XMP = 0x08, 0x04
_OF_FRAMES = frozenset({b"VP8 ", b"VP8L", b"ALPH"})
_KEPT = _OF_FRAMES | {b"VP8X", b"ANIM", b"ANMF", b"ICCP"}
_FRAME_HEAD = 16  # bytes of ANMF before its chunks


def read(content: bytes) -> Image:
    """Measure and clean. What follows the RIFF file is left out. Raises InvalidRequest."""
    size = int.from_bytes(take(content, 4, 4, "its header"), "little")
    kept: list[tuple[bytes, bytes]] = []
    sizes: list[tuple[int, int]] = []
    orientation = UPRIGHT
    for name, body in _chunks(content[12 : 8 + size]):
        if name == b"EXIF":
            orientation = orientation_of(body.removeprefix(EXIF))
        elif name == b"ANMF":
            inside = list(_chunks(body[_FRAME_HEAD:]))
            sizes += [_size(*chunk) for chunk in inside if chunk[0] in (b"VP8 ", b"VP8L")]
            body = take(body, 0, _FRAME_HEAD, "a frame") + _joined([one for one in inside if one[0] in _OF_FRAMES])
        elif name in (b"VP8 ", b"VP8L"):
            sizes.append(_size(name, body))
        if name in _KEPT:
            kept.append((name, body))
    if not sizes:
        raise damaged("it has no pixels")
    num_frames = len(sizes)
    if kept[0][0] == b"VP8X":
        head = take(kept[0][1], 0, 10, "its header")
        flags, rest = head[0], head[1:]
        sizes.append((1 + int.from_bytes(rest[3:6], "little"), 1 + int.from_bytes(rest[6:9], "little")))
        flags &= ~(_HAS_EXIF | _HAS_XMP)
        if orientation != UPRIGHT:
            flags |= _HAS_EXIF
            kept.append((b"EXIF", tiff_with(orientation)))
        kept[0] = (b"VP8X", bytes((flags,)) + rest)
    width, height = max(one for one, _ in sizes), max(one for _, one in sizes)
    if not (width and height):
        raise damaged("it has no size")
    body = KIND + _joined(kept)
    return Image("image/webp", width, height, num_frames, START + len(body).to_bytes(4, "little") + body)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(content):
        head = take(content, at, 8, "a chunk")
        length = int.from_bytes(head[4:], "little")
        yield head[:4], take(content, at + 8, length, "a chunk")
        at += 8 + length + length % 2


def _joined(chunks: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(name + len(body).to_bytes(4, "little") + body + b"\0" * (len(body) % 2) for name, body in chunks)


def _size(name: bytes, body: bytes) -> tuple[int, int]:
    """Width and height in the head of a frame: RFC 9649, 2.5 and 3.4; RFC 6386, 9.1."""
    if name == b"VP8L":
        bits = int.from_bytes(take(body, 1, 4, "a frame"), "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    head = take(body, 6, 4, "a frame")
    return int.from_bytes(head[:2], "little") & 0x3FFF, int.from_bytes(head[2:], "little") & 0x3FFF
