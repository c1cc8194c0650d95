"""FastChat's wire shapes, as of 0.2.36: what controllers, workers and their clients send each other.

An answer is a stream of JSON objects, each followed by a NUL byte. `text` is everything so far, not what is new.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field

from chaku.config import MAX_COUNT, ModelName
from chaku.protocol.openai import MAX_INT
from chaku.protocol.requests import Request

Url = Annotated[str, Field(min_length=1, max_length=300)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]

BEAT_LEASE_S = 90.0
"""A worker beats every 45 s, and is forgotten after two beats that did not come."""
CONTEXT_OVERFLOW = 40303
INTERNAL_ERROR = 50001
END = b"\0"

_ERROR_CODES = {
    400: 40001,
    401: 40101,
    403: 40301,
    404: 40301,
    413: CONTEXT_OVERFLOW,
    429: 42903,
    503: 50005,
    504: 50006,
}


class FastChatMessage(BaseModel):
    """Base of what workers and clients send: fields that are not read here are ignored, as FastChat does."""

    model_config = ConfigDict(frozen=True)


class WorkerStatus(FastChatMessage):
    """The models that a worker serves, and the requests that it holds."""

    model_names: Annotated[tuple[ModelName, ...], Field(max_length=64)]
    speed: float = 1
    queue_length: Count = 0


class Registration(FastChatMessage):
    """POST /register_worker."""

    worker_name: Url
    """Its URL."""
    check_heart_beat: bool = True
    worker_status: WorkerStatus | None = None
    multimodal: bool = False


class HeartBeat(FastChatMessage):
    """POST /receive_heart_beat."""

    worker_name: Url
    queue_length: Count = 0


class ModelQuery(FastChatMessage):
    """A question about one model."""

    model: ModelName


class ConversationTemplate(FastChatMessage):
    """What `chaku` reads of the template that a worker names."""

    name: Annotated[str, Field(max_length=300)]
    system_message: Annotated[str, Field(max_length=100_000)] = ""
    roles: tuple[str, str] = ("USER", "ASSISTANT")
    messages: Annotated[tuple[tuple[str, str], ...], Field(max_length=100)] = ()
    """Examples that every conversation begins with: role and text."""
    sep: str | None = None
    stop_str: str | tuple[str, ...] | None = None
    stop_token_ids: tuple[int, ...] | None = None


class GenerateRequest(Request):
    """POST /worker_generate_stream and /worker_generate."""

    model: ModelName
    prompt: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(ge=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    """256 if it is left out."""
    stop: str | Annotated[list[str], Field(max_length=64, fail_fast=True)] | None = None
    stop_token_ids: Annotated[list[int | None], Field(max_length=64, fail_fast=True)] | None = None
    echo: bool | None = None
    """Whether the prompt begins the text. It does, if this is left out."""
    logprobs: int | None = None
    images: Annotated[list[str], Field(fail_fast=True)] | None = None
    best_of: int | None = None
    use_beam_search: bool | None = None
    user: str | None = None


class CountRequest(Request):
    """POST /count_token."""

    model: ModelName
    prompt: str


class EmbeddingsRequest(Request):
    """POST /worker_get_embeddings."""

    model: ModelName
    input: Annotated[list[str], Field(min_length=1, max_length=2048, fail_fast=True)]
    encoding_format: str | None = None


def frame(content: dict[str, Any]) -> bytes:
    """One object of a stream."""
    return orjson.dumps(content) + END


def error_of(message: str, http_status: int, code: str | None = None) -> dict[str, Any]:
    """The object that stands for a failure."""
    number = CONTEXT_OVERFLOW if code == "context_length_exceeded" else _ERROR_CODES.get(http_status, INTERNAL_ERROR)
    return {"text": message, "error_code": number}


_MARK = re.compile("\x1e[0-9a-f]{32}\x1e")
_ROLES = ("system", "user", "assistant")
_NO_COLON_SINGLE = 4
"""FastChat's number of the style that joins role and text as they are."""


def marked_template() -> dict[str, Any]:
    """A conversation template whose prompts `messages_of` takes apart again, so that the model's own one is used.

    The mark is random: no text of a conversation spells it. It stands at the beginning of every prompt.
    """
    mark = f"\x1e{secrets.token_hex(16)}\x1e"
    return {
        "name": "chaku",
        "system_template": f"{mark}system\n{{system_message}}",
        "system_message": "",
        "system_message_vision": "",
        "roles": [f"{mark}user\n", f"{mark}assistant\n"],
        "messages": [],
        "offset": 0,
        "sep_style": _NO_COLON_SINGLE,
        "sep": "",
        "sep2": None,
        "stop_str": None,
        "stop_token_ids": None,
        "max_image_size_mb": None,
    }


def messages_of(prompt: str) -> list[dict[str, str]] | None:
    """The messages of a prompt that a marked template wrote, without the open turn at its end; None for another.

    Only the first mark counts: whoever wrote the prompt chose it.
    """
    found = _MARK.match(prompt)
    if found is None:
        return None
    messages = []
    for turn in prompt[found.end() :].split(found.group()):
        role, _, text = turn.partition("\n")
        if role not in _ROLES:
            return None
        messages.append({"role": role, "content": text})
    if messages[-1] == {"role": "assistant", "content": ""}:
        messages.pop()
    return [message for message in messages if message["content"] or message["role"] != "system"]


class Frames:
    """Cuts the bytes of a stream into its objects, however the network cut them."""

    MAX_BYTES = 16 << 20

    def __init__(self) -> None:
        self._rest = b""

    def push(self, piece: bytes) -> Iterator[dict[str, Any]]:
        """The objects that are complete now. Raises ValueError for what is none, or is over 16 MiB."""
        *whole, self._rest = (self._rest + piece).split(END)
        if len(self._rest) > self.MAX_BYTES:
            raise ValueError("an object of more than 16 MiB")
        for text in whole:
            if text.strip():
                content = orjson.loads(text)
                if not isinstance(content, dict):
                    raise ValueError("not an object")
                yield content

    @property
    def is_empty(self) -> bool:
        """Whether the stream ended after a whole object."""
        return not self._rest.strip()
