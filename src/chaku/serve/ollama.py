"""What Ollama's clients ask besides answers: which models there are, and what they can do."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NotRequired

import orjson
from fastapi import FastAPI, Request, Response
from typing_extensions import TypedDict

from chaku import __version__
from chaku.errors import ChakuError
from chaku.protocol.messages import Shape
from chaku.protocol.ollama import OllamaError
from chaku.serve.app import limits_of
from chaku.serve.body import read_message
from chaku.serve.openapi import ERRORS, error_responses
from chaku.serve.served import Served
from chaku.serve.table import ModelTable
from chaku.serve.wires.ollama import error_body

_MAX_BYTES = 64 << 10


class OllamaDetails(TypedDict):
    """What is known of a model."""

    parameter_size: NotRequired[str]


class OllamaModel(TypedDict):
    """A row of /ollama/api/tags."""

    name: str
    model: str
    modified_at: str
    details: OllamaDetails


class OllamaModels(TypedDict):
    """Answer of GET /ollama/api/tags."""

    models: list[OllamaModel]


class OllamaVersion(TypedDict):
    """Answer of GET /ollama/api/version."""

    version: str


class ShowRequest(Shape):
    """POST /ollama/api/show."""

    model: str
    verbose: bool | None = None
    """The answer is the same."""


class OllamaShown(TypedDict):
    """Answer of POST /ollama/api/show."""

    modified_at: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]


def add_ollama_routes(app: FastAPI, table: ModelTable) -> None:
    """Put the routes on an application."""

    refused = error_responses(401, 403)

    @app.get("/ollama/api/version", tags=["ollama"], responses=refused)
    async def version() -> OllamaVersion:
        """The version of chaku."""
        return {"version": __version__}

    @app.get("/ollama/api/tags", tags=["ollama"], responses=refused)
    async def tags(request: Request) -> OllamaModels:
        """The models that the caller may ask."""
        limits = limits_of(request)
        return {"models": [_row(served) for served in table if limits.may_ask(served.name)]}

    @app.post(
        "/ollama/api/show",
        tags=["ollama"],
        response_model=OllamaShown,
        responses=refused
        | {status: {"description": ERRORS[status], "model": OllamaError} for status in (400, 404, 413, 415)},
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": ShowRequest.model_json_schema()}},
            }
        },
    )
    async def show(request: Request) -> Response:
        """One model."""
        try:
            asked = await read_message(ShowRequest, request, _MAX_BYTES)
            served = table.get(asked.model, limits_of(request))
        except ChakuError as error:
            return Response(error_body(error), error.http_status, media_type="application/json")
        return Response(orjson.dumps(_shown(served)), media_type="application/json")


def _row(served: Served) -> OllamaModel:
    return {
        "name": served.name,
        "model": served.name,
        "modified_at": _created(served),
        "details": _details(served),
    }


def _shown(served: Served) -> OllamaShown:
    known = served.capabilities
    info: dict[str, Any] = {"general.basename": served.name}
    capabilities: list[str] = []
    if known is not None:
        if known.num_parameters is not None:
            info["general.parameter_count"] = known.num_parameters
        if known.context_tokens is not None:
            info |= {"general.architecture": "chaku", "chaku.context_length": known.context_tokens}
        has = {
            "completion": bool(known.routes & {"chat", "completions"}),
            "embedding": "embeddings" in known.routes,
            "tools": known.tools,
            "vision": known.vision,
            "thinking": known.reasoning,
        }
        capabilities = [name for name, can in has.items() if can]
    return {
        "modified_at": _created(served),
        "details": _details(served),
        "model_info": info,
        "capabilities": capabilities,
    }


def _details(served: Served) -> OllamaDetails:
    known = served.capabilities
    if known is None or known.num_parameters is None:
        return {}
    size = known.num_parameters
    return {"parameter_size": f"{size / 1e9:.1f}B" if size >= 1e9 else f"{size / 1e6:.2f}M"}


def _created(served: Served) -> str:
    return datetime.fromtimestamp(served.created, UTC).isoformat().replace("+00:00", "Z")
