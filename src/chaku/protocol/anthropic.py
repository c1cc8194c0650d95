"""Requests of Anthropic's Messages API. Every field is honoured or refused; an unknown one is refused.

Source: Anthropic's API reference for messages and count_tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag

from chaku.complaints import FUNCTION_NAME
from chaku.config import ModelName
from chaku.protocol.history import drop
from chaku.protocol.messages import MAX_PARTS, Json, Shape
from chaku.protocol.openai import MAX_INT, MAX_TOOLS, Text
from chaku.protocol.requests import Request

REFUSED = {
    "container": "chaku runs no code: leave container out",
    "context_management": "chaku never edits a conversation: send the messages that the model should read",
    "diagnostics": "chaku has no diagnostics: leave it out",
    "inference_geo": "chaku runs where you run it: leave inference_geo out",
    "mcp_servers": "chaku calls no servers for a model: call the tool yourself and send its result",
    "output_format": "output_format was renamed: send output_config.format",
    "user_profile_id": "chaku knows no user profiles: send metadata.user_id",
}
_OF_ANSWERS = frozenset({
    "id", "type", "model", "stop_reason", "stop_sequence", "stop_details", "usage", "container", "diagnostics",
})  # fmt: skip
_OF_BLOCKS: dict[Any, frozenset[str]] = {
    "text": frozenset({"citations", "parsed_output"}),
    "tool_use": frozenset({"caller", "toolset_name"}),
    "tool_result": frozenset({"is_error", "toolset_name"}),
}
"""Fields that an answer or a client adds to a block, and that say nothing to a model."""


class CacheControl(Shape):
    """A mark up to which a prompt may be cached. Engines cache every prompt's beginning, so it asks for nothing."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(Shape):
    """A piece of text."""

    type: Literal["text"]
    text: str
    cache_control: CacheControl | None = None


class Base64Source(Shape):
    """An image in the request."""

    type: Literal["base64"]
    media_type: Literal["image/jpeg", "image/png", "image/gif", "image/webp"]
    data: str


class UrlSource(Shape):
    """An image somewhere else: only an upstream may fetch it."""

    type: Literal["url"]
    url: str


class ImageBlock(Shape):
    """An image."""

    type: Literal["image"]
    source: Annotated[Base64Source | UrlSource, Field(discriminator="type")]
    cache_control: CacheControl | None = None


class ThinkingBlock(Shape):
    """A model's thoughts before an old answer. Nobody checks the signature."""

    type: Literal["thinking"]
    thinking: str
    signature: str = ""


class ToolUseBlock(Shape):
    """A call that the model made."""

    type: Literal["tool_use"]
    id: str
    name: str
    input: Json
    cache_control: CacheControl | None = None


def _kind_of_content(value: Any) -> str:
    return "blocks" if isinstance(value, list) else "text"


Block = Annotated[TextBlock | ImageBlock, Field(discriminator="type")]


class ToolResultBlock(Shape):
    """The result of a call."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: (
        Annotated[
            Annotated[str, Tag("text")]
            | Annotated[list[Block], Field(max_length=MAX_PARTS, fail_fast=True), Tag("blocks")],
            Discriminator(_kind_of_content),
        ]
        | None
    ) = None
    cache_control: CacheControl | None = None


SaidByUser = Annotated[TextBlock | ImageBlock | ToolResultBlock, Field(discriminator="type")]
SaidByModel = Annotated[TextBlock | ThinkingBlock | ToolUseBlock, Field(discriminator="type")]
UserContent = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[SaidByUser], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True), Tag("blocks")],
    Discriminator(_kind_of_content),
]
ModelContent = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[SaidByModel], Field(max_length=MAX_PARTS, fail_fast=True), Tag("blocks")],
    Discriminator(_kind_of_content),
]
TextContent = Annotated[
    Annotated[str, Tag("text")]
    | Annotated[list[TextBlock], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True), Tag("blocks")],
    Discriminator(_kind_of_content),
]


class UserTurn(Shape):
    """A message of a person, and the results of tools."""

    role: Literal["user"]
    content: UserContent


class ModelTurn(Shape):
    """A message of a model. The last message of a request may be one: the model continues it."""

    role: Literal["assistant"]
    content: ModelContent


class SystemTurn(Shape):
    """Instructions in the middle of a conversation."""

    role: Literal["system"]
    content: TextContent


Turn = Annotated[UserTurn | ModelTurn | SystemTurn, Field(discriminator="role")]


class CustomTool(Shape):
    """A tool that the caller runs. Anthropic's own tools have other types and are refused."""

    type: Literal["custom"] | None = None
    name: Annotated[str, Field(pattern=FUNCTION_NAME)]
    description: str | None = None
    input_schema: Json
    strict: bool | None = None
    eager_input_streaming: bool | None = None
    """Arguments are always sent as the model writes them."""
    allowed_callers: Annotated[list[Literal["direct"]], Field(fail_fast=True)] | None = None
    cache_control: CacheControl | None = None


class AnyToolChoice(Shape):
    """Whether the model may or must call a tool."""

    type: Literal["auto", "any", "none"]
    disable_parallel_tool_use: bool | None = None


class NamedToolChoice(Shape):
    """The tool that the model must call."""

    type: Literal["tool"]
    name: str
    disable_parallel_tool_use: bool | None = None


class Metadata(Shape):
    """Labels of a request."""

    user_id: str | None = None


class Thinking(Shape):
    """Whether the model thinks first. No engine bounds thoughts by tokens, so `enabled` with a budget is refused."""

    type: Literal["adaptive", "disabled"]
    display: Literal["summarized"] | None = None
    """Thoughts are shown whole."""


class JsonOutput(Shape):
    """A JSON schema that the answer must satisfy."""

    type: Literal["json_schema"]
    schema_: Json = Field(alias="schema")


class OutputConfig(Shape):
    """How the model answers."""

    effort: Literal["low", "medium", "high", "xhigh"] | None = None
    format: JsonOutput | None = None


class CountTokensRequest(Request):
    """POST /v1/messages/count_tokens. The model reads the prompt and writes one token, which costs a prefill.

    The next call with this prompt finds it in the engine's cache.
    """

    refused: ClassVar[Mapping[str, str]] = REFUSED

    model: ModelName
    messages: Annotated[list[Turn], Field(min_length=1, fail_fast=True)]
    """A last message of the assistant is continued, where the engine can."""
    system: TextContent | None = None
    tools: Annotated[list[CustomTool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    """Custom tools only: chaku runs no tools for a caller."""
    tool_choice: Annotated[AnyToolChoice | NamedToolChoice, Field(discriminator="type")] | None = None
    """`auto`, `any`, `none`, or the name of a tool."""
    thinking: Thinking | None = None
    """`adaptive` or `disabled`. A budget of tokens is refused: no engine bounds thoughts."""
    output_config: OutputConfig | None = None
    """A JSON schema as `format`; `effort` for a model that has such a setting."""
    cache_control: CacheControl | None = None
    """Asks for nothing: engines cache the beginning of every prompt."""

    @classmethod
    def tidy(cls, messages: list[Any], first: int = 0) -> set[str]:
        """Drop what answers and clients add to past messages."""
        dropped: set[str] = set()
        for index, message in enumerate(messages, first):
            if type(message) is dict:
                said = _OF_ANSWERS if message.get("role") == "assistant" else None
                drop(message, said, f"messages.{index}", "", dropped)
                if isinstance(blocks := message.get("content"), list):
                    _tidy_blocks(blocks, index, dropped)
        return dropped


class MessagesRequest(CountTokensRequest):
    """POST /v1/messages."""

    max_tokens: Annotated[int, Field(ge=1, le=MAX_INT)]
    stop_sequences: Annotated[list[Text], Field(max_length=16, fail_fast=True)] | None = None
    """The one that ended the answer is named in `stop_sequence`, where the engine names it: llama.cpp and vLLM do."""
    stream: bool | None = None
    """`message_start` says 0 input tokens: engines count at the end, and `message_delta` has the counts."""
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    metadata: Metadata | None = None
    """`user_id` is passed on to upstreams."""
    service_tier: Literal["auto", "standard_only"] | None = None
    """There is one tier."""
    speed: Literal["standard"] | None = None


def _tidy_blocks(blocks: list[Any], index: int, dropped: set[str]) -> None:
    if any(_is_sealed(block) for block in blocks):
        dropped.add("content.redacted_thinking")
        blocks[:] = [block for block in blocks if not _is_sealed(block)]
    for position, block in enumerate(blocks):
        if type(block) is dict:
            kind = block.get("type")
            said = _OF_BLOCKS.get(kind) if isinstance(kind, str) else None
            drop(block, said, f"messages.{index}.content.{position}", "content.", dropped)


def _is_sealed(block: Any) -> bool:
    """Whether a block holds thoughts that only Anthropic can read."""
    return type(block) is dict and block.get("type") == "redacted_thinking"
