"""The messages of a chat request, in OpenAI's shapes."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag

Json = dict[str, Any]
MAX_PARTS = 2048
"""Parts in one message."""


class Shape(BaseModel):
    """Base of every wire shape: an unknown field is refused, and nothing is converted."""

    # strict: the body is passed on as it came, so "0.5" must not pass for 0.5.
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(Shape):
    """A piece of text in a message."""

    type: Literal["text"]
    text: str


class RefusalPart(Shape):
    """A refusal that an assistant gave earlier."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(Shape):
    """The place of an image: a data: URL, or one that an upstream may fetch."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(Shape):
    """An image in a user message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class MediaPart(Shape):
    """Audio or a file: part of the API, honoured by no engine here."""

    type: Literal["input_audio", "file"]
    input_audio: Json | None = None
    file: Json | None = None


Part = Annotated[TextPart | ImagePart | MediaPart, Field(discriminator="type")]
SpokenPart = Annotated[TextPart | RefusalPart | ImagePart | MediaPart, Field(discriminator="type")]


def _content_kind(value: Any) -> str:
    return "parts" if isinstance(value, list) else "text"


Content = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[Part], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True), Tag("parts")],
    Discriminator(_content_kind),
]
SpokenContent = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[SpokenPart], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True), Tag("parts")],
    Discriminator(_content_kind),
]


class MessageFunctionCall(Shape):
    """The name and the arguments, a JSON text, of a call."""

    name: str
    arguments: str


class MessageToolCall(Shape):
    """A call that an assistant made."""

    id: str
    type: Literal["function"]
    function: MessageFunctionCall


class SystemMessage(Shape):
    """Instructions for the whole conversation."""

    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(Shape):
    """A message of a person."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(Shape):
    """A message of a model, or its tool calls."""

    role: Literal["assistant"]
    content: SpokenContent | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: Annotated[list[MessageToolCall], Field(min_length=1, fail_fast=True)] | None = None


class ToolMessage(Shape):
    """The result of a tool."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str
    name: str | None = None


ChatMessage = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]
