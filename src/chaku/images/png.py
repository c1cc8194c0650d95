"""PNG: chunks up to IEND. Kept: those that decide how the pixels look, by name; texts, times and the rest are not."""

from __future__ import annotations

import struct
import zlib

from chaku.images.orientation import EXIF, UPRIGHT, orientation_of, tiff_with
from chaku.images.parts import Image, damaged, take

START = b"\x89PNG\r\n\x1a\n"
_KEPT = frozenset({
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"acTL", b"fcTL", b"fdAT",
    b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP", b"mDCV", b"cLLI", b"sBIT", b"bKGD", b"pHYs", b"hIST", b"sPLT",
})  # fmt: skip
_OVERHEAD = 12  # length, name, checksum


def read(content: bytes) -> Image:
    """Measure and clean. Raises InvalidRequest."""
    kept: list[bytes] = [START]
    width = height = num_frames = 0
    orientation, before_pixels = UPRIGHT, 0
    at = len(START)
    while True:
        head = take(content, at, 8, "a chunk")
        length, name = struct.unpack(">I4s", head)
        if (name == b"IHDR") is not (at == len(START)):
            raise damaged("its header is not its first chunk")
        whole = take(content, at, length + _OVERHEAD, "a chunk")
        body = whole[8:-4]
        at += len(whole)
        if name == b"IHDR":
            width, height = struct.unpack_from(">II", take(body, 0, 13, "its header"))
        elif name == b"eXIf":
            orientation = orientation_of(body.removeprefix(EXIF))
        elif name == b"fcTL":
            num_frames += 1
        if name == b"IDAT" and not before_pixels:
            before_pixels = len(kept)
        if name in _KEPT:
            kept.append(whole)
        if name == b"IEND":
            break
    if not (width and height):
        raise damaged("it has no size")
    if not before_pixels:
        raise damaged("it has no pixels")
    if orientation != UPRIGHT:
        kept.insert(before_pixels, _chunk(b"eXIf", tiff_with(orientation)))
    return Image("image/png", width, height, max(1, num_frames), b"".join(kept))


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
