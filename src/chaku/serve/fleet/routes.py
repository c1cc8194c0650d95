"""The paths below /fleet: what workers send, and what people ask of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson
from fastapi import FastAPI, Request, Response
from typing_extensions import TypedDict

from chaku.errors import InvalidRequest
from chaku.protocol.fleet import Beat, FleetMessage, Join, Leave, Proof, as_json, proof_of
from chaku.serve.access import Access
from chaku.serve.body import read_message
from chaku.serve.fleet.registry import Fleet
from chaku.serve.fleet.worker import WorkerRow
from chaku.serve.openapi import error_responses

MAX_BYTES = 512 << 10
_NONCE_CHARS = range(16, 129)


class FleetTable(TypedDict):
    """Answer of GET /fleet."""

    workers: list[WorkerRow]


class LogLines(TypedDict):
    """The last log lines of a worker."""

    lines: list[str]


NoteAdmin = Callable[[str | None, str, str], Awaitable[None]]
"""Writes down what an admin did through the API: id of the key (None: the local user), action, name of its subject."""


async def note_nothing(key_id: str | None, action: str, subject: str) -> None:
    """For a gateway without a store."""


def add_fleet_routes(app: FastAPI, fleet: Fleet, access: Access, note_admin: NoteAdmin) -> None:
    """Put the gateway's side on an application. Who may call is in `serve.endpoints`.

    `note_admin` writes down who drained or reloaded a worker.
    """

    @app.get("/fleet", tags=["fleet"], responses=error_responses(401, 403))
    async def list_workers() -> FleetTable:
        """The workers of this gateway, with their state."""
        return {"workers": fleet.rows()}

    @app.post("/fleet/join", include_in_schema=False)
    async def join(request: Request) -> Response:
        peer = request.client.host if request.client else ""
        is_local = access.is_local(peer, dict(request.scope["headers"]))
        key_id = request.scope["chaku_caller"].key_id
        return _json(await fleet.join(await read_message(Join, request, MAX_BYTES), is_local=is_local, key_id=key_id))

    @app.post("/fleet/beat", include_in_schema=False)
    async def beat(request: Request) -> Response:
        return _json(fleet.beat(await read_message(Beat, request, MAX_BYTES)))

    @app.post("/fleet/leave", include_in_schema=False)
    async def leave(request: Request) -> Response:
        fleet.leave(await read_message(Leave, request, MAX_BYTES))
        return Response(status_code=204)

    of_one = error_responses(401, 403, 404)

    @app.post("/fleet/workers/{worker}/drain", tags=["fleet"], status_code=202, responses=of_one)
    async def drain(request: Request, worker: str) -> None:
        """Send a worker no new requests; it ends once its running ones are over."""
        fleet.drain(worker)
        await note_admin(request.scope["chaku_caller"].key_id, "workers.drain", worker)

    @app.post("/fleet/workers/{worker}/reload", tags=["fleet"], status_code=202, responses=of_one)
    async def reload(request: Request, worker: str) -> None:
        """Restart the engine of a worker, once its running requests are over."""
        fleet.reload(worker)
        await note_admin(request.scope["chaku_caller"].key_id, "workers.reload", worker)

    @app.get("/fleet/workers/{worker}/logs", tags=["fleet"], responses={**of_one, **error_responses(503)})
    async def logs(worker: str) -> LogLines:
        """The last log lines of a worker, with its next beat."""
        return {"lines": list(await fleet.logs(worker))}


def add_worker_route(app: FastAPI, name: str, generation: str, key: str) -> None:
    """Put the worker's side of the call-back on an application."""

    @app.get("/fleet/self", include_in_schema=False)
    async def prove(nonce: str = "") -> Response:
        if len(nonce) not in _NONCE_CHARS or not nonce.isalnum():
            raise InvalidRequest("nonce takes 16 to 128 letters and digits", param="nonce")
        return _json(Proof(name=name, generation=generation, proof=proof_of(key, name, generation, nonce)))


def _json(message: FleetMessage) -> Response:
    return Response(orjson.dumps(as_json(message)), media_type="application/json")
