"""Ollama's API: requests, answers and events. Every field is honoured or refused; an unknown one is refused.

Source: Ollama's API reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from chaku.config import ModelName
from chaku.protocol.messages import Json, Shape
from chaku.protocol.openai import MAX_INPUTS, MAX_INT, MAX_SEED, MAX_TOOLS, Penalty, Text, Tool
from chaku.protocol.requests import Request

REFUSED = {
    "context": "chaku keeps no state: send the conversation to /ollama/api/chat",
    "logprobs": "read log probabilities from /v1/chat/completions",
    "suffix": "send it to /v1/completions",
    "template": "the model's own template is used: set another with chaku serve --template",
    "top_logprobs": "read log probabilities from /v1/chat/completions",
    "truncate": "a long input is refused, never cut",
}
MAX_IMAGES = 64
_Int = Annotated[int, Field(ge=0, le=MAX_INT)] | None


class Options(Shape):
    """Sampling parameters, and settings of a server that loads models."""

    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=MAX_INT)] | None = None
    """0 is no limit."""
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=-MAX_SEED - 1, le=MAX_SEED)] | None = None
    num_predict: Annotated[int, Field(ge=-2, le=MAX_INT)] | None = None
    """Below 1: no limit but the context."""
    stop: Text | Annotated[list[Text], Field(max_length=16, fail_fast=True)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    num_ctx: _Int = None
    """The server's own setting holds: chaku serve --context."""
    num_batch: _Int = None
    """The server's own setting holds."""
    num_gpu: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = None
    """The server's own setting holds: chaku serve --gpu-layers."""
    main_gpu: _Int = None
    """The server's own setting holds."""
    num_thread: _Int = None
    """The server's own setting holds: chaku serve --threads."""
    use_mmap: bool | None = None
    """The server's own setting holds."""
    mirostat: Literal[0] | None = None
    """No engine here has mirostat."""


class CalledFunction(Shape):
    """A function that the model called."""

    name: str
    arguments: Json
    index: int | None = None
    """Says nothing to a model."""


class ToolCall(Shape):
    """A call that the model made."""

    function: CalledFunction
    id: str | None = None
    type: Literal["function"] | None = None


class RequestMessage(Shape):
    """A message of a chat."""

    role: Literal["system", "user", "assistant", "tool"]
    content: str | None = None
    thinking: str | None = None
    """A model's thoughts before an old answer."""
    images: Annotated[list[str], Field(max_length=MAX_IMAGES, fail_fast=True)] | None = None
    """Images as base64."""
    tool_calls: Annotated[list[ToolCall], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_name: str | None = None
    """The tool whose result it is."""
    tool_call_id: str | None = None


class _Asked(Request):
    """Fields that chats and generations share."""

    refused: ClassVar[Mapping[str, str]] = REFUSED

    model: ModelName
    stream: bool | None = None
    """Default: true, as Ollama has it."""
    format: Literal["", "json"] | Json | None = None
    """`json`, or a JSON schema that the answer must satisfy."""
    think: bool | Literal["low", "medium", "high"] | None = None
    """Whether, or how hard, the model thinks first, where it has such a setting."""
    options: Options | None = None
    keep_alive: float | str | None = None
    """The server decides: chaku serve --idle-unload."""


class OllamaChatRequest(_Asked):
    """POST /ollama/api/chat."""

    messages: Annotated[list[RequestMessage], Field(min_length=1, fail_fast=True)]
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None


class OllamaGenerateRequest(_Asked):
    """POST /ollama/api/generate."""

    prompt: Text
    system: str | None = None
    images: Annotated[list[str], Field(max_length=MAX_IMAGES, fail_fast=True)] | None = None
    """Images as base64."""
    raw: bool | None = None
    """Continue the prompt as it is, without a chat template."""


class OllamaEmbedRequest(Request):
    """POST /ollama/api/embed."""

    refused: ClassVar[Mapping[str, str]] = REFUSED

    model: ModelName
    input: Text | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True)]
    dimensions: Annotated[int, Field(ge=1)] | None = None
    options: Options | None = None
    """No option changes an embedding."""
    keep_alive: float | str | None = None
    """The server decides: chaku serve --idle-unload."""


class OllamaCalled(TypedDict):
    """The function of a call."""

    name: str
    arguments: dict[str, Any]


class OllamaCall(TypedDict):
    """A call."""

    function: OllamaCalled


class OllamaMessage(TypedDict):
    """A model's message, or a piece of it."""

    role: Literal["assistant"]
    content: str
    thinking: NotRequired[str]
    tool_calls: NotRequired[list[OllamaCall]]


class _End(TypedDict):
    model: str
    created_at: str
    done: bool
    done_reason: NotRequired[str]
    total_duration: NotRequired[int]
    """Nanoseconds."""
    prompt_eval_count: NotRequired[int]
    eval_count: NotRequired[int]


class OllamaChat(_End):
    """Answer of a chat, or a line of its stream."""

    message: OllamaMessage


class OllamaGeneration(_End):
    """Answer of a generation, or a line of its stream."""

    response: str
    thinking: NotRequired[str]


class OllamaEmbeddings(TypedDict):
    """Answer of POST /ollama/api/embed."""

    model: str
    embeddings: list[list[float]]
    total_duration: int
    prompt_eval_count: int


class OllamaError(TypedDict):
    """An error."""

    error: str
