"""The OpenAPI description: the app's own routes, and the hot inference routes that no framework sees."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from chaku import __version__
from chaku.protocol.answers import ChatChunk, ChatCompletion, Embeddings, ErrorBody, TextCompletion
from chaku.protocol.openai import ChatRequest, CompletionRequest, EmbeddingRequest

_REF = "#/components/schemas/{model}"

_INFERENCE: list[tuple[str, str, Any, Any, Any | None]] = [
    ("/v1/chat/completions", "Answer a conversation", ChatRequest, ChatCompletion, ChatChunk),
    ("/v1/completions", "Continue a text", CompletionRequest, TextCompletion, TextCompletion),
    ("/v1/embeddings", "Turn texts into vectors", EmbeddingRequest, Embeddings, None),
]

ERRORS: dict[int, str] = {
    400: "A field is unknown, out of range, or can't be honoured by this model; `param` names it",
    401: "No API key, or an unknown one",
    403: "A foreign Host or Origin",
    404: "No such model or page",
    405: "This path knows another method",
    413: "The body is too large",
    429: "The queue is full; Retry-After says when to come back",
    500: "The gateway failed",
    502: "The engine failed",
    503: "The engine is loading or restarting; Retry-After says when to come back",
    504: "The deadline passed",
}


def error_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses` for these statuses."""
    return {status: {"description": ERRORS[status], "model": ErrorBody} for status in statuses}


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
    kinds = {kind for _, _, *some in _INFERENCE for kind in some if kind is not None} | {ErrorBody}
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
    for path, summary, request, answer, chunk in _INFERENCE:
        content: dict[str, Any] = {"application/json": {"schema": schemas[answer]}}
        if chunk is not None:
            content["text/event-stream"] = {"schema": {"type": "string"}, "x-event": schemas[chunk]}
        refusals = {
            str(status): {"description": text, "content": {"application/json": {"schema": schemas[ErrorBody]}}}
            for status, text in ERRORS.items()
        }
        page.setdefault("paths", {})[path] = {
            "post": {
                "summary": summary,
                "operationId": path.removeprefix("/v1/").replace("/", "_"),
                "tags": ["inference"],
                "requestBody": {"required": True, "content": {"application/json": {"schema": schemas[request]}}},
                "responses": {"200": {"description": "The answer", "content": content}, **refusals},
            }
        }
    app.openapi_schema = page
    return page
