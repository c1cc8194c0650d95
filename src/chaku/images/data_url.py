"""Images in the parts of messages: `data:` URLs checked against limits, and written anew without metadata.

An address elsewhere (http, https) is left as it is: only an upstream may fetch it.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from chaku.errors import InvalidRequest
from chaku.images import gif, jpeg, png, webp
from chaku.images.parts import Image
from chaku.policies import ImageLimits

_HEAD = re.compile(r"data:(image/[\w.+-]{1,64})?;base64,", re.IGNORECASE)
_REMOTE = re.compile(r"https?://", re.IGNORECASE)
_SLICE = 256 << 10
"""Characters converted at once: other threads run in between. A multiple of 12, so that slices join without padding."""
_SLICE -= _SLICE % 12
_READERS: tuple[tuple[re.Pattern[bytes], Callable[[bytes], Image]], ...] = (
    (re.compile(rb"\xff\xd8\xff"), jpeg.read),
    (re.compile(re.escape(png.START)), png.read),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), webp.read),
    (re.compile(rb"GIF8[79]a"), gif.read),
)
"""By a file's first bytes."""
_SETTING = "image_limits"
_FLAG = "--image-limit"


def clean(content: bytes) -> Image:
    """An image measured, and without metadata. Raises InvalidRequest for a damaged one, and for another format."""
    for start, read in _READERS:
        if start.match(content):
            return read(content)
    raise InvalidRequest(
        "the image is neither JPEG, PNG, WebP nor GIF", fix="convert it to one of them", code="invalid_image"
    )


def clean_messages(messages: list[dict[str, Any]], limits: ImageLimits) -> None:
    """Clean every image of a chat in place.

    Takes about 10 ms per MB, in slices: call it from a thread. Raises InvalidRequest with the value, the limit and the
    way out.
    """
    _clean_all(_images_of(messages), limits)


def clean_content(content: str | list[dict[str, Any]], limits: ImageLimits) -> None:
    """Clean the images of one message. As `clean_messages`."""
    _clean_all(_images_in(content, "content"), limits)


def has_images(messages: Iterable[dict[str, Any]]) -> bool:
    """Whether there is anything to clean."""
    return next(_images_of(messages), None) is not None


def _images_of(messages: Iterable[dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    for index, message in enumerate(messages):
        yield from _images_in(message.get("content"), f"messages.{index}.content")


def _images_in(content: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """The name of each part that is an image, and the object that holds its URL."""
    for number, part in enumerate(content if isinstance(content, list) else ()):
        if part["type"] == "image_url":
            yield f"{place}.{number}", part["image_url"]


def _clean_all(images: Iterator[tuple[str, dict[str, Any]]], limits: ImageLimits) -> None:
    for num_images, (param, image_url) in enumerate(images, 1):
        if num_images > limits.count:
            raise InvalidRequest(
                f"the request has more than {limits.count} images",
                fix=f"send fewer, or raise {_SETTING}.count ({_FLAG} count={2 * limits.count}) on the server",
                param=param,
                code="too_many_images",
            )
        try:
            image_url["url"] = _cleaned(image_url["url"], limits)
        except InvalidRequest as error:
            error.param = param
            raise


def _cleaned(url: str, limits: ImageLimits) -> str:
    if _REMOTE.match(url):
        return url
    head = _HEAD.match(url)
    if head is None:
        raise InvalidRequest(
            "image_url is neither a data:image/...;base64, URL nor an http(s) address", code="invalid_image"
        )
    max_bytes = int(limits.megabytes * 1e6)
    if (num_bytes := (len(url) - head.end()) * 3 // 4) > max_bytes + 1000:  # without decoding; lines may be broken
        raise _over(num_bytes / 1e6, "MB", "megabytes", limits.megabytes)
    content = _decoded(url, head.end())
    if len(content) > max_bytes:
        raise _over(len(content) / 1e6, "MB", "megabytes", limits.megabytes)
    image = clean(content)
    if image.num_pixels > limits.megapixels * 1e6:
        frames = f" in {image.num_frames} frames" if image.num_frames > 1 else ""
        raise _over(
            image.num_pixels / 1e6, f"megapixels ({image.width} x {image.height}{frames})",
            "megapixels", limits.megapixels,
        )  # fmt: skip
    return f"data:{image.media_type};base64,{_encoded(image.content)}"


def _over(value: float, unit: str, limit_name: str, limit: float) -> InvalidRequest:
    higher = max(2 * limit, float(f"{value:.2g}") + 1)
    return InvalidRequest(
        f"the image has {value:,.1f} {unit}, this server takes {limit:g}",
        fix=f"send it smaller, or raise {_SETTING}.{limit_name} ({_FLAG} {limit_name}={higher:g}) on the server",
        code="image_too_large",
    )


def _decoded(url: str, start: int) -> bytes:
    text = url[start:]
    if any(space in text for space in "\n\r "):
        text = "".join(text.split())
    text = text.rstrip("=")
    text += "=" * (-len(text) % 4)
    pieces = []
    try:
        for at in range(0, len(text), _SLICE):
            pieces.append(base64.b64decode(text[at : at + _SLICE], validate=True))
    except (binascii.Error, ValueError):
        raise InvalidRequest("the image is not base64", code="invalid_image") from None
    return b"".join(pieces)


def _encoded(content: bytes) -> str:
    step = _SLICE // 4 * 3
    return "".join(base64.b64encode(content[at : at + step]).decode() for at in range(0, len(content), step))
