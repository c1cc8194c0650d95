"""The one fact of EXIF that is kept: how a camera was held. Without it, photos of phones would lie on their side."""

from __future__ import annotations

import struct

EXIF = b"Exif\0\0"
UPRIGHT = 1
_TAG, _SHORT = 0x0112, 3  # TIFF 6.0, page 36: Orientation, one 16-bit number
_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}


def orientation_of(tiff: bytes) -> int:
    """The orientation (1 to 8) in the TIFF structure of an EXIF block. 1, upright, where it gives none."""
    order = _ORDERS.get(tiff[:4])
    if order is None:
        return UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (num_entries,) = struct.unpack_from(f"{order}H", tiff, start)
        for index in range(num_entries):
            tag, kind, count, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * index)
            if tag == _TAG and kind == _SHORT and count == 1 and 1 <= value <= 8:
                return int(value)
    except struct.error:  # it points outside of itself
        pass
    return UPRIGHT


def tiff_with(orientation: int) -> bytes:
    """A TIFF structure that gives the orientation and nothing else."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, _TAG, _SHORT, 1, orientation, 0, 0)
