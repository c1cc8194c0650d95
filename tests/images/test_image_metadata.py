"""Images lose where, when and by whom they were taken, and no pixel. Pillow writes the files."""

from __future__ import annotations

import base64
import contextlib
import io
import zlib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaku.errors import InvalidRequest
from chaku.images import webp
from chaku.images.data_url import clean, clean_messages
from chaku.images.orientation import orientation_of, tiff_with
from chaku.policies import ImageLimits
from images.pictures import FORMATS, SECRET, Image, saved


def pixels(content: bytes) -> list[bytes]:
    with Image.open(io.BytesIO(content)) as opened:
        frames = []
        for number in range(getattr(opened, "n_frames", 1)):
            opened.seek(number)
            frames.append(opened.convert("RGBA").tobytes())
        return frames


def message(content: bytes, media_type: str = "image/png") -> list[dict[str, Any]]:
    url = f"data:{media_type};base64,{base64.b64encode(content).decode()}"
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


@pytest.mark.parametrize(
    ("form", "frames"), [(form, frames) for form in FORMATS for frames in (1, 3) if (form, frames) != ("JPEG", 3)]
)
def test_metadata_goes_and_every_pixel_stays(form: str, frames: int) -> None:
    before = saved(form, frames=frames)
    assert SECRET in before
    image = clean(before)
    assert SECRET not in image.content and b"Exif" not in image.content and len(image.content) < len(before)
    assert pixels(image.content) == pixels(before)
    assert (image.media_type, image.width, image.height) == (f"image/{form.lower()}", 7, 5)
    assert image.num_frames == frames
    assert clean(image.content).content == image.content
    with Image.open(io.BytesIO(image.content)) as opened:
        assert not dict(opened.getexif()) and not {"comment", "xmp", "Author"} & set(opened.info)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_how_the_camera_was_held_stays(form: str, orientation: int) -> None:
    image = clean(saved(form, orientation=orientation))
    assert SECRET not in image.content
    with Image.open(io.BytesIO(image.content)) as opened:
        assert dict(opened.getexif()) == {0x0112: orientation}
    assert clean(image.content).content == image.content


@pytest.mark.parametrize("options", [{"progressive": True}, {"restart_marker_rows": 1}, {"optimize": True}])
def test_jpegs_of_several_scans_and_restarts_keep_their_pixels(options: dict[str, Any]) -> None:
    before = saved("JPEG", **options)
    assert pixels(clean(before).content) == pixels(before)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_the_colour_profile_stays(form: str) -> None:
    profile = bytes(range(256)) * 300  # more than one segment of JPEG holds
    with Image.open(io.BytesIO(clean(saved(form, icc_profile=profile)).content)) as opened:
        assert opened.info["icc_profile"] == profile


@pytest.mark.parametrize("form", FORMATS)
def test_what_follows_the_image_goes(form: str) -> None:
    before = saved(form)
    assert clean(before + SECRET).content == clean(before).content


def test_a_thumbnail_in_a_jpegs_first_segment_goes() -> None:
    before = saved("JPEG")
    assert before[2:4] == b"\xff\xe0"
    body = before[6:18] + b"\x01\x01" + SECRET[:3]  # one pixel of a thumbnail
    with_thumbnail = before[:4] + (len(body) + 2).to_bytes(2, "big") + body + before[20:]
    assert clean(with_thumbnail).content == clean(before).content


@pytest.mark.parametrize("length", [0, 1, 5])
def test_a_webp_chunk_that_is_too_short_is_refused_or_left_as_it_is(length: int) -> None:
    chunks = list(webp._chunks(saved("WEBP", frames=2)[12:]))
    for short, (name, body) in enumerate(chunks):
        cut = webp._joined([*chunks[:short], (name, body[:length]), *chunks[short + 1 :]])
        with contextlib.suppress(InvalidRequest):
            clean(b"RIFF" + (len(cut) + 4).to_bytes(4, "little") + b"WEBP" + cut)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(FORMATS), st.data())
def test_a_broken_file_is_cleaned_or_refused_with_its_reason(form: str, data: st.DataObject) -> None:
    content = bytearray(saved(form, frames=1 if form == "JPEG" else 2))
    for _ in range(data.draw(st.integers(0, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        clean(cut)
    except InvalidRequest as error:
        assert error.code == "invalid_image" and error.fix


@given(st.integers(1, 8), st.binary(max_size=40))
def test_an_orientation_is_read_from_what_is_written_and_from_nothing_else(number: int, noise: bytes) -> None:
    assert orientation_of(tiff_with(number)) == number
    assert 1 <= orientation_of(b"II*\0" + noise) <= 8


def bomb(width: int = 60_000, height: int = 60_000) -> bytes:
    """A PNG of a few bytes whose header promises 3.6 gigapixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes((8, 2, 0, 0, 0))
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def test_limits_name_the_value_the_limit_and_the_way_out() -> None:
    small = ImageLimits(megabytes=0.001, megapixels=1, count=2)
    big = saved("PNG") + b"\0" * 2000
    frames = saved("GIF", frames=3)
    for content, limits, said in (
        (bomb(), ImageLimits(), "3,600.0 megapixels (60000 x 60000), this server takes 50: .*megapixels=3601"),
        (big, small, "MB, this server takes 0.001: .*image_limits.megabytes"),
        (frames, ImageLimits(megapixels=0.0001), "7 x 5 in 3 frames"),
        (b"BM", small, "neither JPEG, PNG, WebP nor GIF: convert"),
    ):
        with pytest.raises(InvalidRequest, match=said.replace("(", r"\(").replace(")", r"\)")) as refused:
            clean_messages(message(content), limits)
        assert refused.value.param == "messages.0.content.0"
    with pytest.raises(InvalidRequest, match=r"more than 2 images: send fewer, or raise image_limits\.count"):
        clean_messages(message(saved("PNG")) * 3, small)


@pytest.mark.parametrize(
    "url", ["file:///etc/passwd", "ftp://a/b", "data:text/html;base64,AAAA", "data:image/png,xx", ""]
)
def test_other_addresses_are_refused(url: str) -> None:
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]
    with pytest.raises(InvalidRequest, match="neither a data:image"):
        clean_messages(messages, ImageLimits())


def test_an_address_of_a_web_server_is_left_alone() -> None:
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://a.example/b.png"}}]}]
    clean_messages(messages, ImageLimits())
    assert messages[0]["content"][0]["image_url"]["url"] == "https://a.example/b.png"  # type: ignore[index]


@given(st.binary(min_size=1, max_size=200), st.booleans(), st.integers(0, 80))
def test_every_way_to_write_base64_gives_the_same_image(tail: bytes, is_padded: bool, line: int) -> None:
    content = saved("PNG") + tail  # of all lengths
    text = base64.b64encode(content).decode()
    text = text if is_padded else text.rstrip("=")
    text = "\n".join(text[at : at + line] for at in range(0, len(text), line)) if line else text
    messages = [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": f"data:image/jpeg;base64,{text}"}}]}
    ]
    clean_messages(messages, ImageLimits())
    head, _, sent = messages[0]["content"][0]["image_url"]["url"].partition(",")  # type: ignore[index]
    assert (head, base64.b64decode(sent)) == ("data:image/png;base64", clean(content).content)
