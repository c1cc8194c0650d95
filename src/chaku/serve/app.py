"""Everything the gateway answers besides inference: models, health, metrics, the API's description."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException
from typing_extensions import TypedDict

from chaku import __version__
from chaku.engines.base import State
from chaku.errors import ChakuError, InvalidRequest, MethodNotAllowed, NotFound
from chaku.models.recommended import recommended_here
from chaku.models.registry import recommended
from chaku.policies import Limits
from chaku.protocol.errors import body_of
from chaku.serve.access import Caller
from chaku.serve.limits import headers_in
from chaku.serve.metrics import Metrics
from chaku.serve.openapi import describe, error_responses
from chaku.serve.served import Served
from chaku.serve.table import ModelTable


class ServedModel(TypedDict):
    """A row of /v1/models: OpenAI's four fields, and what chaku knows beyond them."""

    id: str
    object: str
    created: int
    owned_by: str
    state: str
    detail: str
    progress: float | None
    context_tokens: int | None
    slots: int | None
    num_parameters: int | None
    """Weights; null where the engine does not say."""
    capabilities: list[str]
    running: int
    waiting: int
    recommended: dict[str, Any] | None
    """Sampling, answer limit and system message that suit the model in a chat; requests don't get them unasked."""


class ServedModels(TypedDict):
    """Answer of GET /v1/models."""

    object: str
    data: list[ServedModel]


class Health(TypedDict):
    """Answer of GET /health."""

    status: str
    version: str
    models: dict[str, str]


def describe_model(served: Served) -> ServedModel:
    """The row of a model in /v1/models, as of now."""
    status = served.status()
    known = served.capabilities
    source = served.config.source
    suits = recommended_here(source) if served.is_configured else recommended(source)  # a worker names no folder here
    abilities: set[str] = set()
    if known is not None:
        abilities = {*known.routes, *known.parameters}
        abilities |= {name for name in ("tools", "vision", "reasoning", "scores_prompts") if getattr(known, name)}
    return {
        "id": served.name,
        "object": "model",
        "created": served.created,
        "owned_by": "chaku",
        "state": str(status.state),
        "detail": status.detail,
        "progress": status.progress,
        "context_tokens": known.context_tokens if known else None,
        "slots": served.admission.slots if known else None,
        "num_parameters": known.num_parameters if known else None,
        "capabilities": sorted(abilities),
        "running": served.admission.num_running,
        "waiting": served.admission.num_waiting,
        "recommended": suits.known() if suits else None,
    }


def limits_of(request: Request) -> Limits:
    """What the caller of a request may do."""
    caller: Caller = request.scope["chaku_caller"]
    return caller.limits


def build_app(table: ModelTable, metrics: Metrics) -> FastAPI:
    """The FastAPI application; pages may be added to it."""
    app: FastAPI = FastAPIOffline(
        title="chaku",
        version=__version__,
        docs_url="/docs",
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]
    _answer_errors_in_openai_shape(app)

    @app.get("/v1/models", tags=["models"], responses=error_responses(401, 403))
    async def list_models(request: Request) -> ServedModels:
        """The models that the caller may ask, with their state."""
        limits = limits_of(request)
        return {"object": "list", "data": [describe_model(served) for served in table if limits.may_ask(served.name)]}

    @app.get("/v1/models/{model:path}", tags=["models"], responses=error_responses(400, 401, 403, 404))
    async def show_model(request: Request, model: str) -> ServedModel:
        """One model."""
        return describe_model(table.get(model, limits_of(request)))

    @app.head("/health", include_in_schema=False)
    @app.get("/health", tags=["operation"], responses={503: {"model": Health, "description": "No model is ready"}})
    async def health(response: Response) -> Health:
        """200 once a model is ready, 503 before and where none can be: status is ok, loading or failed."""
        models = {served.name: describe_model(served)["state"] for served in table}
        is_ready = not models or any(state in (State.READY, State.UNLOADED) for state in models.values())
        if not is_ready:
            response.status_code = 503
        has_failed = all(state in (State.FAILED, State.STOPPED) for state in models.values())
        status = "ok" if is_ready else "failed" if has_failed else "loading"
        return {"status": status, "version": __version__, "models": models}

    @app.get(
        "/metrics",
        tags=["operation"],
        response_class=Response,
        responses={
            200: {"content": {"text/plain": {"schema": {"type": "string"}}}, "description": "Prometheus text format"},
            **error_responses(401, 403),
        },
    )
    async def read_metrics() -> Response:
        """The page that Prometheus scrapes."""
        return Response(metrics.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    return app


def _answer_errors_in_openai_shape(app: FastAPI) -> None:
    def answer(status: int, error: ChakuError, headers: Any = None) -> Response:
        return Response(orjson.dumps(body_of(error)), status, headers, media_type="application/json")

    @app.exception_handler(ChakuError)
    async def of_chaku(request: Request, error: ChakuError) -> Response:
        headers = {name.decode(): value.decode() for name, value in headers_in(error)}
        if error.retry_after_s is not None:
            headers["retry-after"] = str(max(1, round(error.retry_after_s)))
        return answer(error.http_status, error, headers)

    @app.exception_handler(HTTPException)
    async def of_http(request: Request, error: HTTPException) -> Response:
        kind = {404: NotFound, 405: MethodNotAllowed}.get(error.status_code, InvalidRequest)
        return answer(error.status_code, kind(f"{request.method} {request.url.path}: {error.detail}"), error.headers)

    @app.exception_handler(RequestValidationError)
    async def of_validation(request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"][1:])
        return answer(400, InvalidRequest(f"{param}: {first['msg']}", param=param, code="invalid_value"))
