"""Images as cameras and programs write them, with metadata of every kind. Pillow makes them."""

from __future__ import annotations

import hashlib
import io
from typing import Any

import pytest

Image = pytest.importorskip("PIL.Image", reason="Pillow makes the images")
PngInfo = pytest.importorskip("PIL.PngImagePlugin").PngInfo

SECRET = b"52.5200N-13.4050E-someone"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF")


def exif(orientation: int = 1) -> Any:
    """EXIF with a camera's maker, an artist, GPS and an orientation."""
    facts = Image.Exif()
    facts[0x010F] = facts[0x013B] = SECRET.decode()
    facts[0x0112] = orientation
    facts[0x8825] = {1: "N", 29: SECRET.decode()}
    return facts


def picture(size: tuple[int, int] = (7, 5), seed: int = 1) -> Any:
    data = b"".join(hashlib.sha256(bytes((seed, row))).digest() for row in range(size[1] * size[0] * 3 // 32 + 1))
    return Image.frombytes("RGB", size, data[: size[0] * size[1] * 3])


def saved(form: str, *, frames: int = 1, orientation: int = 1, **options: Any) -> bytes:
    """One image in a format, with metadata of every kind that the format has."""
    given: dict[str, Any] = {**options}
    if form in ("JPEG", "WEBP"):
        given |= {"exif": exif(orientation), "xmp": b"<x:xmpmeta>" + SECRET + b"</x:xmpmeta>"}
    if form == "JPEG":
        given |= {"comment": SECRET, "quality": 90}
    if form == "WEBP":
        given |= {"lossless": True}
    if form == "PNG":
        texts = PngInfo()
        texts.add_text("Author", SECRET.decode())
        texts.add_text("Packed", SECRET.decode(), zip=True)
        texts.add_itxt("XML:com.adobe.xmp", SECRET.decode())
        given |= {"pnginfo": texts, "exif": exif(orientation)}
    if form == "GIF":
        given |= {"comment": SECRET}
    if frames > 1:
        given |= {"save_all": True, "append_images": [picture(seed=seed) for seed in range(2, frames + 1)]}
    file = io.BytesIO()
    picture().save(file, form, **given)
    return file.getvalue()
