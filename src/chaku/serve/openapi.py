"""The OpenAPI description: the app's own routes, and the hot inference routes that no framework sees."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from chaku import __version__
from chaku.protocol.answers import ChatChunk, ChatCompletion, Embeddings, ErrorBody, TextCompletion
from chaku.protocol.anthropic import CountTokensRequest, MessagesRequest
from chaku.protocol.anthropic_answers import InputTokens, MessageEvent, MessagesAnswer, MessagesErrorBody
from chaku.protocol.azure_ml import ScoreAnswer, ScoreRequest
from chaku.protocol.ollama import (
    OllamaChat,
    OllamaChatRequest,
    OllamaEmbeddings,
    OllamaEmbedRequest,
    OllamaError,
    OllamaGenerateRequest,
    OllamaGeneration,
)
from chaku.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest
from chaku.protocol.responses import ResponsesRequest
from chaku.protocol.responses_answers import Response, ResponseEvent

_REF = "#/components/schemas/{model}"


@dataclass(frozen=True)
class Described:
    """One inference path: the shapes of its request, its answer, one event of its stream, and its errors."""

    path: str
    summary: str
    request: Any
    answer: Any
    chunk: Any | None = None
    error: Any = ErrorBody
    is_ndjson: bool = False
    """A stream has a JSON object on each line, and no events."""

    @property
    def shapes(self) -> set[Any]:
        """Every shape that it names."""
        return {self.request, self.answer, self.error} | ({self.chunk} if self.chunk is not None else set())


INFERENCE = (
    Described("/v1/chat/completions", "Answer a conversation", ChatRequest, ChatCompletion, ChatChunk),
    Described("/v1/completions", "Continue a text", CompletionRequest, TextCompletion, TextCompletion),
    Described("/v1/embeddings", "Turn texts into vectors", EmbeddingRequest, Embeddings),
    Described(
        "/v1/messages",
        "Answer a conversation (Anthropic)",
        MessagesRequest,
        MessagesAnswer,
        MessageEvent,
        MessagesErrorBody,
    ),
    Described("/v1/responses", "Answer a conversation (Responses)", ResponsesRequest, Response, ResponseEvent),
    Described("/score", "Continue texts (Azure ML)", ScoreRequest, ScoreAnswer),
    Described(
        "/v1/messages/count_tokens",
        "Count a prompt's tokens (Anthropic)",
        CountTokensRequest,
        InputTokens,
        error=MessagesErrorBody,
    ),
    *(
        Described(path, summary, request, answer, chunk, OllamaError, is_ndjson=True)
        for path, summary, request, answer, chunk in (
            ("/ollama/api/chat", "Answer a conversation (Ollama)", OllamaChatRequest, OllamaChat, OllamaChat),
            (
                "/ollama/api/generate",
                "Answer a prompt (Ollama)",
                OllamaGenerateRequest,
                OllamaGeneration,
                OllamaGeneration,
            ),
            ("/ollama/api/embed", "Turn texts into vectors (Ollama)", OllamaEmbedRequest, OllamaEmbeddings, None),
        )
    ),
)
"""The inference paths, for the API's description and the docs."""

ERRORS: dict[int, str] = {
    400: "A field is unknown, out of range, or can't be honoured by this model; `param` names it",
    401: "No API key, or an unknown one",
    403: "A foreign Host or Origin",
    404: "No such model or page",
    405: "This path knows another method",
    409: "Something is in a state that does not allow this",
    413: "The body is too large",
    415: "An unknown Content-Encoding",
    429: "The queue is full; Retry-After says when to come back",
    500: "The gateway failed",
    502: "The engine failed",
    503: "The engine is loading or restarting; Retry-After says when to come back",
    504: "The deadline passed",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for these statuses.

    They name the shape of errors, which `describe` adds: FastAPI would build it for each route and status at start.
    """
    shape = {"application/json": {"schema": {"$ref": _REF.format(model=ErrorBody.__name__)}}}
    return {status: {"description": ERRORS[status], "content": shape} for status in statuses}


def describe(app: FastAPI) -> dict[str, Any]:
    """The whole API as OpenAPI 3.1; computed once per app."""
    if app.openapi_schema:
        return app.openapi_schema
    page = get_openapi(
        title="chaku",
        version=__version__,
        description="OpenAI-compatible API. Every field is honoured, or refused with a 400 that names it.",
        routes=app.routes,
    )
    kinds = {ErrorBody}.union(*(described.shapes for described in INFERENCE))
    inputs = [
        (kind, "validation" if kind.__name__.endswith("Request") else "serialization", TypeAdapter(kind))
        for kind in sorted(kinds, key=lambda kind: str(kind.__name__))
    ]
    refs, definitions = TypeAdapter.json_schemas(inputs, ref_template=_REF)  # type: ignore[arg-type]
    schemas = {kind: schema for (kind, _), schema in refs.items()}
    components = page.setdefault("components", {})
    components.setdefault("schemas", {}).update(definitions.get("$defs", {}))
    components["securitySchemes"] = {"ApiKey": {"type": "http", "scheme": "bearer"}}
    page["security"] = [{}, {"ApiKey": []}]
    for described in INFERENCE:
        page.setdefault("paths", {})[described.path] = {"post": _operation(described, schemas)}
    app.openapi_schema = page
    return page


_EVENT = {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}}


def _operation(described: Described, schemas: dict[Any, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schemas[described.answer]}}
    if described.is_ndjson and described.chunk is not None:
        content["application/x-ndjson"] = {"schema": {"type": "string"}, "itemSchema": schemas[described.chunk]}
    elif described.chunk is not None:
        content["text/event-stream"] = {
            "schema": {"type": "string"},
            "itemSchema": _EVENT,  # OpenAPI 3.2's; older readers skip it, or take `schema` for that of an event
            "x-event": schemas[described.chunk],
        }
    refusals = {
        str(status): {"description": text, "content": {"application/json": {"schema": schemas[described.error]}}}
        for status, text in ERRORS.items()
    }
    return {
        "summary": described.summary,
        "operationId": described.path.removeprefix("/v1/").strip("/").replace("/", "_"),
        "tags": ["inference"],
        "requestBody": {"required": True, "content": {"application/json": {"schema": schemas[described.request]}}},
        "responses": {"200": {"description": "The answer", "content": content}, **refusals},
    }
