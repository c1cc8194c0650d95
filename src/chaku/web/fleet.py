"""The workers of this gateway and its last requests, shown to the local user and to admins."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import Response

from chaku.store.audit import Actor
from chaku.web.requests import Handler, actor_of, check_admin, json_response


class FleetOfGateway(Protocol):
    """What the page needs of the gateway's workers; `chaku.serve.fleet.registry.Fleet` implements it."""

    def rows(self) -> Sequence[Any]:
        """The rows of GET /fleet."""

    def requests(self) -> Sequence[Any]:
        """The last requests, without contents, the newest first."""

    def drain(self, name: str) -> None:
        """Send a worker no new requests; it ends once its running ones are over."""

    def reload(self, name: str) -> None:
        """Have a worker restart its engine."""

    async def logs(self, name: str) -> Sequence[str]:
        """The last log lines of a worker."""


class FleetPage:
    """The routes below /fleet."""

    def __init__(self, fleet: FleetOfGateway, note: Callable[[str, str, Actor], None]) -> None:
        """`note` writes down an action of the audit log, the worker's name and who it was."""
        self._fleet = fleet
        self._note_change = note

    def routes(self) -> list[tuple[str, str, Handler]]:
        """Method, path below /api, handler."""
        return [
            ("GET", "/fleet", self.show),
            ("POST", "/fleet/{worker}/drain", self.drain),
            ("POST", "/fleet/{worker}/reload", self.reload),
            ("GET", "/fleet/{worker}/logs", self.logs),
        ]

    async def show(self, request: Request) -> Response:
        """Workers and last requests."""
        check_admin(request)
        return json_response({"workers": self._fleet.rows(), "requests": self._fleet.requests()})

    async def drain(self, request: Request) -> Response:
        """Drain a worker."""
        check_admin(request)
        self._fleet.drain(request.path_params["worker"])
        await self._note(request, "workers.drain")
        return Response(status_code=204)

    async def reload(self, request: Request) -> Response:
        """Reload a worker."""
        check_admin(request)
        self._fleet.reload(request.path_params["worker"])
        await self._note(request, "workers.reload")
        return Response(status_code=204)

    async def logs(self, request: Request) -> Response:
        """The log tail of a worker."""
        check_admin(request)
        return json_response({"lines": list(await self._fleet.logs(request.path_params["worker"]))})

    async def _note(self, request: Request, action: str) -> None:
        await asyncio.to_thread(self._note_change, action, request.path_params["worker"], actor_of(request))
