"""What callers may send to the OpenAI-compatible routes. Every field is honoured or refused; an unknown one is refused.

The models check shape and range only; whether a model can honour a field is `serve.capability`'s business.
Source: OpenAI's API reference for chat completions, completions and embeddings.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from chaku.errors import InvalidRequest

Json = dict[str, Any]
Model = TypeVar("Model", bound=BaseModel)


class _Shape(BaseModel):
    # strict: the body is passed on as it came, so "0.5" must not pass for 0.5.
    model_config = ConfigDict(extra="forbid", strict=True)


class TextPart(_Shape):
    """A piece of text in a message."""

    type: Literal["text"]
    text: str


class RefusalPart(_Shape):
    """A refusal that an assistant gave earlier."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(_Shape):
    """Where an image is: a data: URL, or one that an upstream may fetch."""

    url: str
    detail: Literal["auto", "low", "high"] | None = None


class ImagePart(_Shape):
    """An image in a user message."""

    type: Literal["image_url"]
    image_url: ImageUrl


class MediaPart(_Shape):
    """Audio or a file: part of the API, honoured by no engine here."""

    type: Literal["input_audio", "file"]
    input_audio: Json | None = None
    file: Json | None = None


Part = Annotated[TextPart | RefusalPart | ImagePart | MediaPart, Field(discriminator="type")]


def _content_kind(value: Any) -> str:
    return "parts" if isinstance(value, list) else "text"


Content = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[Part], Field(min_length=1), Tag("parts")],
    Discriminator(_content_kind),
]


class FunctionCall(_Shape):
    """The name and the arguments, a JSON text, of a call."""

    name: str
    arguments: str


class ToolCall(_Shape):
    """A call that an assistant made."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class SystemMessage(_Shape):
    """Instructions for the whole conversation."""

    role: Literal["system", "developer"]
    content: Content
    name: str | None = None


class UserMessage(_Shape):
    """What a person said."""

    role: Literal["user"]
    content: Content
    name: str | None = None


class AssistantMessage(_Shape):
    """What a model said, or the calls it made."""

    role: Literal["assistant"]
    content: Content | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    name: str | None = None
    tool_calls: Annotated[list[ToolCall], Field(min_length=1)] | None = None
    audio: None = None
    function_call: None = None
    annotations: list[Any] | None = None


class ToolMessage(_Shape):
    """What a tool returned."""

    role: Literal["tool"]
    content: Content
    tool_call_id: str
    name: str | None = None


Message = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]


class FunctionSpec(_Shape):
    """A function that the model may call."""

    name: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,64}$")]
    description: str | None = None
    parameters: Json | None = None
    strict: bool | None = None


class Tool(_Shape):
    """A tool that the model may call."""

    type: Literal["function"]
    function: FunctionSpec


class NamedFunction(_Shape):
    """The name of a function."""

    name: str


class NamedTool(_Shape):
    """Force a call of one tool."""

    type: Literal["function"]
    function: NamedFunction


class JsonSchema(_Shape):
    """A JSON schema that the answer must satisfy."""

    name: str
    description: str | None = None
    schema_: Json | None = Field(None, alias="schema")
    strict: bool | None = None


class TextFormat(_Shape):
    """Plain text."""

    type: Literal["text"]


class JsonObjectFormat(_Shape):
    """Any JSON object."""

    type: Literal["json_object"]


class JsonSchemaFormat(_Shape):
    """JSON that satisfies a schema."""

    type: Literal["json_schema"]
    json_schema: JsonSchema


ResponseFormat = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]


class StreamOptions(_Shape):
    """What a stream also carries."""

    include_usage: bool | None = None
    include_obfuscation: Literal[False] | None = None


Stop = str | Annotated[list[str], Field(max_length=16)] | None
LogitBias = dict[Annotated[str, Field(pattern=r"^\d+$")], Annotated[float, Field(ge=-100, le=100)]]
Penalty = Annotated[float, Field(ge=-2, le=2)]
MAX_SEED = 2**63 - 1


ModelName = Annotated[str, Field(pattern=r"^[^\p{C}\p{Zl}\p{Zp}]+$", max_length=256)]


class Sampling(_Shape):
    """Fields that chat and plain completions share."""

    model: ModelName
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
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
    top_k: Annotated[int, Field(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=10)] | None = None
    ignore_eos: bool | None = None


class ChatRequest(Sampling):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=2**31 - 1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    tools: list[Tool] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    store: Literal[False] | None = None
    service_tier: Literal["auto", "default"] | None = None
    modalities: list[Literal["text"]] | None = None
    verbosity: Literal["medium"] | None = None


TokenIds = Annotated[list[Annotated[int, Field(ge=0, le=2**31 - 1)]], Field(min_length=1)]


class CompletionRequest(Sampling):
    """POST /v1/completions."""

    prompt: str | TokenIds | Annotated[list[str], Field(min_length=1)] | Annotated[list[TokenIds], Field(min_length=1)]
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: Annotated[int, Field(ge=1, le=20)] | None = None


def prompts_of(value: Any) -> list[Any]:
    """What a `prompt` or an `input` holds, one by one: texts, or lists of token ids."""
    return value if isinstance(value, list) and not isinstance(value[0], int) else [value]


class EmbeddingRequest(_Shape):
    """POST /v1/embeddings."""

    model: ModelName
    input: str | TokenIds | Annotated[list[str], Field(min_length=1)] | Annotated[list[TokenIds], Field(min_length=1)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, Field(ge=1)] | None = None
    user: str | None = None


KNOWN_BUT_REFUSED = {
    "audio": "no engine here speaks",
    "functions": "functions is deprecated: use tools",
    "function_call": "function_call is deprecated: use tool_choice",
    "prediction": "predicted outputs are not supported",
    "moderation": "chaku moderates no requests",
    "prompt_cache_options": "engines keep their own prompt caches: leave it out",
    "prompt_cache_retention": "engines keep their own prompt caches: leave it out",
    "web_search_options": "chaku searches no web",
    "store": "answers are not stored on request: leave store out",
    "service_tier": "there is one service tier: leave service_tier out",
    "modalities": "only text comes out: leave modalities out",
    "verbosity": "no engine here honours verbosity: ask for it in the prompt",
}


def check(kind: type[Model], body: Any) -> Model:
    """A parsed body as the request model that it fits.

    Raises InvalidRequest with the first field at fault as `param`.
    """
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise _refusal(error, body) from None


def _refusal(error: ValidationError, body: Any) -> InvalidRequest:
    first = error.errors(include_url=False, include_context=False)[0]
    param = _path(first["loc"], body, missing=first["type"] == "missing")
    field = str(first["loc"][0]) if first["loc"] else ""
    if field in KNOWN_BUT_REFUSED:
        why = KNOWN_BUT_REFUSED[field]
        return InvalidRequest(f"{field} can't be honoured: {why}", param=field, code="unsupported_parameter")
    if first["type"] == "extra_forbidden":
        return InvalidRequest(f"unknown parameter {param}", param=param, code="unknown_parameter")
    if first["type"] == "missing":
        return InvalidRequest(f"missing parameter {param}", param=param, code="missing_required_parameter")
    if not first["loc"]:
        return InvalidRequest("the body must be a JSON object")
    shown = repr(first["input"])
    shown = shown if len(shown) <= 80 else shown[:77] + "..."
    return InvalidRequest(f"{param} is {shown}: {first['msg']}", param=param, code="invalid_value")


def _path(location: tuple[int | str, ...], body: Any, *, missing: bool) -> str | None:
    """The caller's own keys and indices: pydantic's location also names the branch of a union that it tried."""
    path: list[str] = []
    here = body
    for part in location:
        if (isinstance(here, dict) and part in here) or (isinstance(here, list) and isinstance(part, int)):
            here = here[part]  # type: ignore[index]
            path.append(str(part))
    if missing:
        path.append(str(location[-1]))
    return ".".join(path) or None
