"""Requests of the OpenAI-compatible routes. Every field is honoured or refused; an unknown one is refused.

The models check shape and range only; whether a model can honour a field is `serve.capability`'s business.
Source: OpenAI's API reference for chat completions, completions and embeddings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Discriminator, Field, Tag

from chaku.complaints import FUNCTION_NAME, TOKEN_ID
from chaku.config import ModelName
from chaku.protocol import history
from chaku.protocol.messages import ChatMessage, Json, Shape
from chaku.protocol.requests import Request


class FunctionSpec(Shape):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=FUNCTION_NAME)]
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class Tool(Shape):
    """A tool that the model may call."""

    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(Shape):
    """The name of a function."""

    name: str


class NamedTool(Shape):
    """Force a call of one tool."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(Shape):
    """A JSON schema that the answer must satisfy."""

    name: str
    description: str | None = None
    schema_: Json | None = Field(None, alias="schema")
    strict: bool | None = None


class TextFormat(Shape):
    """Plain text."""

    type: Literal["text"]


class JsonObjectFormat(Shape):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(Shape):
    """JSON that satisfies a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StreamOptions(Shape):
    """Options of a stream."""

    include_usage: bool | None = None
    continuous_usage_stats: bool | None = None
    """vLLM's. Accepted with a note: the usage comes once, at the end."""
    include_obfuscation: Literal[False] | None = None


Text = Annotated[str, Field(min_length=1)]
Stop = Text | Annotated[list[Text], Field(max_length=16, fail_fast=True)] | None
Penalty = Annotated[float, Field(ge=-2, le=2)]
MAX_INT = 2**31 - 1
"""The largest count of tokens, and token id: engines hold them in 32 bits with a sign."""
MAX_SEED = 2**63 - 1
LENGTH_LIMITS = ("max_tokens", "max_completion_tokens")
"""The fields for an answer's length, the older one first."""
MAX_INPUTS = 2048
"""Prompts or inputs in one request: OpenAI's limit."""
MAX_BIASES = 2048
MAX_TOOLS = 1024

REFUSED = {
    "audio": "chaku does not produce audio",
    "functions": "functions is deprecated: use tools",
    "function_call": "function_call is deprecated: use tool_choice",
    "prediction": "predicted outputs are not supported",
    "moderation": "chaku does not moderate requests",
    "prompt_cache_options": "engines keep their own prompt caches: leave it out",
    "prompt_cache_retention": "engines keep their own prompt caches: leave it out",
    "web_search_options": "chaku does not search the web",
    "store": "answers are not stored on request: leave store out",
    "service_tier": "chaku has one service tier: leave service_tier out",
    "modalities": "chaku answers in text only: leave modalities out",
    "verbosity": "no engine here honours verbosity: ask for it in the prompt",
}
"""Fields of OpenAI's API that chaku refuses, with the reason."""


def _bounded(limit: int) -> BeforeValidator:
    """Refuse a larger object before its entries are looked at: each wrong one would become a complaint of its own."""

    def check(value: Any) -> Any:
        if isinstance(value, dict) and len(value) > limit:
            raise ValueError(f"at most {limit:,} entries are allowed")
        return value

    return BeforeValidator(check)


LogitBias = Annotated[
    dict[Annotated[str, Field(pattern=TOKEN_ID)], Annotated[float, Field(ge=-100, le=100)]], _bounded(MAX_BIASES)
]


def _kind_of_prompts(value: Any) -> str:
    """The form of a `prompt` or `input`, by its first item. Only this form is checked, so there is one complaint."""
    if not isinstance(value, list):
        return "text"
    if not value or isinstance(value[0], str):
        return "texts"
    return "lists of ids" if isinstance(value[0], list) else "ids"


TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=MAX_INT)]], Field(min_length=1, fail_fast=True)]
Prompts = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[list[Text], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True), Tag("texts")]
    | Annotated[TokenIds, Tag("ids")]
    | Annotated[list[TokenIds], Field(min_length=1, max_length=MAX_INPUTS, fail_fast=True), Tag("lists of ids")],
    Discriminator(_kind_of_prompts),
]


class Sampling(Request):
    """Fields that chat and plain completions share."""

    refused: ClassVar[Mapping[str, str]] = REFUSED

    model: ModelName
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    n: Annotated[int, Field(ge=1, le=16)] | None = None
    stop: Stop = None
    seed: Annotated[int, Field(ge=-MAX_SEED - 1, le=MAX_SEED)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: LogitBias | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: str | None = None
    response_format: ResponseFormat | None = None
    # Extensions, named as vLLM and Hugging Face name them.
    top_k: Annotated[int, Field(ge=-1, le=MAX_INT)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    ignore_eos: bool | None = None


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, fail_fast=True)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=MAX_INT)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS, fail_fast=True)] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    metadata: Annotated[dict[str, str], _bounded(64)] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: Annotated[list[Literal["text"]], Field(fail_fast=True)] | None = None
    verbosity: Literal["medium"] | None = None
    # Extensions, named as vLLM names them.
    continue_final_message: bool | None = None
    """Continue the text of a last assistant message; the answer is only what is added."""
    add_generation_prompt: bool | None = None
    """The counterpart of continue_final_message: false where that is true."""

    @classmethod
    def tidy(cls, messages: list[Any], first: int = 0) -> set[str]:
        """Drop what servers and SDKs add to past messages: see `protocol.history`."""
        return history.tidy(messages, first)


class CompletionRequest(Sampling):
    """POST /v1/completions."""

    prompt: Prompts
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    max_tokens: Annotated[int, Field(ge=0, le=MAX_INT)] | None = None
    """0 with echo and logprobs: only score the prompt, where the engine can."""
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Field(ge=1, le=20)] | None = None


def prompts_of(value: Any) -> list[Any]:
    """The items of a `prompt` or an `input`: texts, or lists of token ids."""
    return value if isinstance(value, list) and not isinstance(value[0], int) else [value]


class EmbeddingRequest(Request):
    """POST /v1/embeddings."""

    refused: ClassVar[Mapping[str, str]] = REFUSED

    model: ModelName
    input: Prompts
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None
