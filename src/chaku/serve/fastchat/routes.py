"""The paths below /fastchat: the controller's, and the worker's that FastChat's servers ask for every chaku model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import orjson
from fastapi import FastAPI, Request, Response

from chaku.protocol.fastchat import HeartBeat, ModelQuery, Registration, marked_template
from chaku.serve.access import Access
from chaku.serve.body import read_message
from chaku.serve.fastchat.registry import FastChatWorkers
from chaku.serve.table import ModelTable

PREFIX = "/fastchat"
_MAX_BYTES = 64 << 10
_NO_LIMIT = 1 << 20
"""The context that FastChat is told where nobody knows it."""


def add_fastchat_routes(
    app: FastAPI, workers: FastChatWorkers, table: ModelTable, access: Access, public_url: str | None
) -> None:
    """Put controller and worker surface on an application. Who may call is in `serve.endpoints`."""

    def route(path: str) -> Callable[[Callable[[Request], Awaitable[Any]]], None]:
        def add(answer: Callable[[Request], Awaitable[Any]]) -> None:
            async def respond(request: Request) -> Response:
                return Response(orjson.dumps(await answer(request)), media_type="application/json")

            app.add_api_route(PREFIX + path, respond, methods=["POST"], include_in_schema=False)

        return add

    def names() -> list[str]:
        return sorted(served.name for served in table if served.refresh())

    @route("/register_worker")
    async def register(request: Request) -> None:
        peer = request.client.host if request.client else ""
        is_local = access.is_local(peer, dict(request.scope["headers"]))
        workers.register(await read_message(Registration, request, _MAX_BYTES), is_local=is_local)

    @route("/receive_heart_beat")
    async def beat(request: Request) -> dict[str, bool]:
        return {"exist": workers.beat(await read_message(HeartBeat, request, _MAX_BYTES))}

    @route("/refresh_all_workers")
    async def refresh(request: Request) -> None:
        """Nothing to do: the table is never older than a call or a beat."""

    @route("/list_models")
    async def list_models(request: Request) -> dict[str, list[str]]:
        return {"models": names()}

    @route("/list_language_models")
    async def list_language_models(request: Request) -> dict[str, list[str]]:
        return {"models": names()}

    @route("/list_multimodal_models")
    async def list_multimodal_models(request: Request) -> dict[str, list[str]]:
        return {"models": []}  # images are not read here

    @route("/get_worker_address")
    async def address(request: Request) -> dict[str, str]:
        asked = await read_message(ModelQuery, request, _MAX_BYTES)
        base = public_url or str(request.base_url)
        return {"address": base.rstrip("/") + PREFIX if asked.model in names() else ""}

    @route("/worker_get_status")
    async def status(request: Request) -> dict[str, Any]:
        waiting = sum(served.admission.num_running + served.admission.num_waiting for served in table)
        return {"model_names": names(), "speed": 1, "queue_length": waiting}

    @route("/model_details")
    async def details(request: Request) -> dict[str, int]:
        asked = await read_message(ModelQuery, request, _MAX_BYTES)
        known = table.find(asked.model).capabilities
        return {"context_length": (known.context_tokens if known else None) or _NO_LIMIT}

    @route("/worker_get_conv_template")
    async def template(request: Request) -> dict[str, Any]:
        asked = await read_message(ModelQuery, request, _MAX_BYTES)
        table.find(asked.model)
        return {"conv": marked_template()}

    @app.get(PREFIX + "/test_connection", include_in_schema=False)
    async def test_connection() -> str:
        return "success"
