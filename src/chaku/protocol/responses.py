"""Requests of OpenAI's Responses API, without its memory: every request brings its whole conversation.

Source: OpenAI's API reference for responses. Items of old answers may come back as they were sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from chaku.complaints import FUNCTION_NAME
from chaku.config import ModelName
from chaku.protocol.messages import MAX_PARTS, Json, Shape
from chaku.protocol.openai import MAX_INT, MAX_TOOLS, Text
from chaku.protocol.requests import Request

_STATELESS = "chaku stores no answers: send the whole conversation in input"


class InputText(Shape):
    """Text of a person, or a tool's."""

    type: Literal["input_text"]
    text: str


class InputImage(Shape):
    """An image: a data: URL, or one that an upstream may fetch."""

    type: Literal["input_image"]
    image_url: str
    detail: Literal["auto", "low", "high"] | None = None


class OutputText(Shape):
    """Text of an old answer."""

    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None
    parsed: Any = None


class Refusal(Shape):
    """A refusal of an old answer."""

    type: Literal["refusal"]
    refusal: str


def _kind_of_content(value: Any) -> str:
    return "parts" if isinstance(value, list) else "text"


Part = Annotated[InputText | InputImage | OutputText | Refusal, Field(discriminator="type")]
Content = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[Part], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True), Tag("parts")],
    Discriminator(_kind_of_content),
]


class MessageItem(Shape):
    """A message of anyone."""

    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content
    id: str | None = None
    status: str | None = None
    phase: str | None = None


class FunctionCallItem(Shape):
    """A call that the model made."""

    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    id: str | None = None
    status: str | None = None
    caller: Json | None = None
    namespace: None = None
    parsed_arguments: Any = None


class FunctionOutputItem(Shape):
    """The result of a call."""

    type: Literal["function_call_output"]
    call_id: str
    output: Content
    id: str | None = None
    status: str | None = None


class ReasoningText(Shape):
    """Thoughts, or a summary of them."""

    type: Literal["reasoning_text", "summary_text"]
    text: str


class ReasoningItem(Shape):
    """A model's thoughts before an old answer."""

    type: Literal["reasoning"]
    id: str | None = None
    summary: Annotated[list[ReasoningText], Field(fail_fast=True)] | None = None
    content: Annotated[list[ReasoningText], Field(fail_fast=True)] | None = None
    encrypted_content: str | None = None
    status: str | None = None


def _kind_of_item(value: Any) -> str | None:
    """The type of an item; a message may leave it out."""
    if isinstance(value, dict):
        return str(value.get("type") or "message")
    return getattr(value, "type", None)


Item = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    Discriminator(_kind_of_item),
]
Input = Annotated[
    Annotated[Text, Tag("text")] | Annotated[list[Item], Field(min_length=1, fail_fast=True), Tag("parts")],
    Discriminator(_kind_of_content),
]


class FunctionTool(Shape):
    """A function that the model may call. OpenAI's own tools have other types and are refused."""

    type: Literal["function"]
    name: Annotated[str, Field(pattern=FUNCTION_NAME)]
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class NamedFunction(Shape):
    """The function that the model must call."""

    type: Literal["function"]
    name: str


class PlainText(Shape):
    """Plain text."""

    type: Literal["text"]


class JsonObject(Shape):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchema(Shape):
    """JSON that satisfies a schema."""

    type: Literal["json_schema"]
    name: str
    schema_: Json = Field(alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextConfig(Shape):
    """The form of the answer's text."""

    format: Annotated[PlainText | JsonObject | JsonSchema, Field(discriminator="type")] | None = None
    verbosity: Literal["medium"] | None = None


class Reasoning(Shape):
    """How much a model thinks first."""

    effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    summary: Literal["auto"] | None = None
    """Thoughts are shown whole."""


class ResponsesStreamOptions(Shape):
    """Options of a stream."""

    include_obfuscation: Literal[False] | None = None


class ResponsesRequest(Request):
    """POST /v1/responses."""

    refused: ClassVar[Mapping[str, str]] = {
        "background": "chaku stores no answers: wait for this one",
        "context_management": "chaku never edits a conversation",
        "conversation": _STATELESS,
        "max_tool_calls": "chaku runs no tools: count the calls that you run",
        "moderation": "chaku does not moderate requests",
        "previous_response_id": _STATELESS,
        "prompt": "chaku stores no prompts: send instructions and input",
        "prompt_cache_options": "engines keep their own prompt caches: leave it out",
        "prompt_cache_retention": "engines keep their own prompt caches: leave it out",
        "store": "chaku stores no answers: send store: false",
        "top_logprobs": "log probabilities are a part of /v1/chat/completions",
        "truncation": "a prompt is never cut: leave truncation out, or send disabled",
    }

    model: ModelName
    input: Input
    """Text, or items: messages, function calls, their outputs, and reasoning."""
    instructions: str | None = None
    max_output_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    stream: bool | None = None
    stream_options: ResponsesStreamOptions | None = None
    store: Literal[False] | None = None
    """Answers are never stored, also where this is left out."""
    tools: Annotated[list[FunctionTool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    """Functions only: chaku runs no tools for a caller."""
    tool_choice: Literal["none", "auto", "required"] | NamedFunction | None = None
    parallel_tool_calls: bool | None = None
    text: TextConfig | None = None
    """A JSON object or schema as `format`."""
    reasoning: Reasoning | None = None
    """`effort` for a model that has such a setting."""
    include: Annotated[list[Literal["reasoning.encrypted_content"]], Field(fail_fast=True)] | None = None
    """Thoughts come in plain text, so that they can be sent back; nothing is encrypted."""
    metadata: Annotated[dict[str, str], Field(max_length=64)] | None = None
    """Passed on to upstreams, as are the next three."""
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    service_tier: Literal["auto", "default"] | None = None
    """There is one tier."""
    truncation: Literal["disabled"] | None = None
    """A prompt that does not fit is refused with both numbers."""
