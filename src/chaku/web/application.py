"""The page and its JSON application, put together and mounted on the gateway's app."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from chaku import __version__, tasks
from chaku.errors import ChakuError, InvalidRequest, MethodNotAllowed, NotFound
from chaku.policies import GuestPolicy, ImageLimits
from chaku.runs import ROOT
from chaku.store.audit import record
from chaku.store.database import Store
from chaku.store.guests import Guests
from chaku.store.keyring import KeyRing
from chaku.store.leases import LEASE_S
from chaku.store.sessions import Sessions
from chaku.store.users import Users
from chaku.web import shapes, streams
from chaku.web.answers import Answers
from chaku.web.arena import Arena, ArenaSettings, CheckPrompt
from chaku.web.arena_board import ArenaBoard
from chaku.web.chats import Chats
from chaku.web.eval_runs import EvalRuns
from chaku.web.fleet import FleetOfGateway, FleetPage
from chaku.web.guest_notice import notice_of
from chaku.web.keys_page import KeysPage
from chaku.web.logins import COOKIE, GatewayAccess, Logins, Visitor, check_same_site, set_cookie
from chaku.web.machine import Machine
from chaku.web.messages import Messages
from chaku.web.page import SECURITY_HEADERS, PageFiles
from chaku.web.requests import Handler, json_response, read_json, visitor_of
from chaku.web.side_by_side import SideBySide

log = logging.getLogger(__name__)

_OPEN = frozenset({"/session", "/login", "/logout", "/guest"})
"""Paths that need no login."""


class Application:
    """The page's application, which starts and stops with the gateway."""

    def __init__(
        self,
        store: Store,
        keys: KeyRing,
        access: GatewayAccess,
        models: Callable[[], list[Any]],
        base_url: str,
        lease_s: float,
        runs: Path,
        evals: Path,
        arena: ArenaSettings,
        fleet: FleetOfGateway | None,
        certificate: str | None,
        check_prompt: CheckPrompt | None,
        guests: GuestPolicy | None,
        user_header: str | None,
        said: Store,
        images: ImageLimits,
    ) -> None:
        self._models = models
        self._limits_of = access.limits_of
        self._closing = asyncio.Event()
        self._hub = streams.Hub(self._shown_models)
        self._guests = Guests(store, guests.limits) if guests is not None else None
        self._guest_notice = notice_of(guests, keeps=said is store) if guests is not None else None
        users = Users(store) if user_header is not None else None
        access.visitors = tuple(known for known in (self._guests, users) if known is not None)
        self._logins = Logins(
            access,
            keys,
            Sessions(store),
            self._guests,
            new_per_hour=guests.new_per_hour if guests is not None else 1,
            users=users,
            user_header=user_header,
        )
        self._answers = Answers(
            said, base_url, access.inside_token, self._hub.tell_message, lease_s=lease_s, certificate=certificate
        )
        self._machine = Machine(runs)
        self._evals = EvalRuns(evals, store)
        self._fleet = (
            FleetPage(fleet, lambda action, worker, by: record(store, action, worker, by=by))
            if fleet is not None
            else None
        )
        self._chats = Chats(said, self._answers, self._hub, images)
        self._messages = Messages(said, self._answers, self._hub, models, self._open_stream, images)
        self._arena = Arena(said, self._answers, models, self._may_ask, self._open_stream, arena, check_prompt)
        self._board = ArenaBoard(said, self._arena)
        self._side_by_side = SideBySide(said)
        self._keys_page = KeysPage(store)
        self._watching: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look after answers and models."""
        await self._answers.start()
        self._watching = tasks.repeat(self._hub.watch, "models-watcher")

    def end_streams(self) -> None:
        """Let every tab go; they come back to the next gateway."""
        self._closing.set()
        self._answers.close()

    async def stop(self) -> None:
        """Write down what is under way."""
        self.end_streams()
        await self._answers.stop()
        await self._arena.stop()
        await tasks.cancel(self._watching)

    def api(self) -> Starlette:
        """The application below /api."""
        handlers: list[tuple[str, str, Handler]] = [
            ("GET", "/session", self._show_session),
            ("POST", "/login", self._log_in),
            ("POST", "/logout", self._log_out),
            ("POST", "/guest", self._begin_as_guest),
            ("GET", "/models", self._list_models),
            ("GET", "/events", self._show_events),
            *self._machine.routes(),
            *self._evals.routes(),
            *(self._fleet.routes() if self._fleet is not None else ()),
            *self._chats.routes(),
            *self._messages.routes(),
            *self._arena.routes(),
            *self._board.routes(),
            *self._side_by_side.routes(),
            *self._keys_page.routes(),
        ]
        routes = [Route(path, self._guarded(path, handler), methods=[method]) for method, path, handler in handlers]
        return Starlette(routes=routes, exception_handlers={HTTPException: _refuse_http})

    def _guarded(self, path: str, handler: Handler) -> Handler:
        """A handler that checks the origin and the login, and turns errors into answers."""

        async def guarded(request: Request) -> Response:
            try:
                check_same_site(request)
                find = self._logins.find if path in _OPEN else self._logins.who
                request.state.visitor = await find(request)
                response = await handler(request)
            except ChakuError as error:
                response = refusal(error)
            except Exception:
                log.exception("request failed path=%s", request.url.path)
                response = refusal(ChakuError("the gateway failed on this request; its log has the details"))
            response.headers.update(SECURITY_HEADERS)
            return response

        return guarded

    async def _show_session(self, request: Request) -> Response:
        return self._session(request.state.visitor)

    async def _log_in(self, request: Request) -> Response:
        login = await read_json(request, shapes.Login)
        visitor, token = await self._logins.log_in(request, login.key)
        response = self._session(visitor)
        if token:
            set_cookie(response, token, is_secure=self._logins.came_over_tls(request))
        return response

    async def _begin_as_guest(self, request: Request) -> Response:
        visitor, token = await self._logins.begin_as_guest(request)
        response = self._session(visitor)
        set_cookie(response, token, is_secure=self._logins.came_over_tls(request))
        return response

    async def _log_out(self, request: Request) -> Response:
        await self._logins.log_out(request)
        response = Response(status_code=204)
        response.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
        return response

    async def _list_models(self, request: Request) -> Response:
        return json_response({"models": self._askable(visitor_of(request), self._shown_models())})

    def _shown_models(self) -> list[Any]:
        return self._arena.without_battles(self._models())

    def _askable(self, visitor: Visitor, rows: list[Any]) -> list[Any]:
        """The models that the visitor may ask: no others are shown, as on every API."""
        return [row for row in rows if self._may_ask(visitor.key_id, row["id"])]

    def _may_ask(self, visitor_id: str | None, model: str) -> bool:
        limits = self._limits_of(visitor_id)
        return limits is not None and limits.may_ask(model)

    async def _show_events(self, request: Request) -> Response:
        visitor = visitor_of(request)
        listening = self._hub.listen(visitor.key_id, streams.read_last_id(request))

        async def events() -> AsyncGenerator[streams.Numbered]:
            async with contextlib.aclosing(listening):
                async for number, event in listening:
                    if event["type"] == "models":
                        event = {**event, "models": self._askable(visitor, event["models"])}
                    yield number, event

        return self._open_stream(request, events())

    def _open_stream(self, request: Request, events: AsyncGenerator[streams.Numbered]) -> Response:
        """A stream that ends when the gateway closes, or when the visitor is no longer welcome."""
        visitor = visitor_of(request)

        async def is_welcome() -> bool:
            return await self._logins.find(request) == visitor

        return StreamingResponse(streams.written(events, self._closing, is_welcome), headers=streams.HEADERS)

    def _session(self, visitor: Visitor | None) -> Response:
        user = visitor and {"name": visitor.name, "kind": visitor.kind}
        return json_response(
            {
                "version": __version__,
                "login_required": self._logins.must_log_in,
                "user": user,
                "guest_notice": self._guest_notice if visitor is None else None,
                "sees_runs": visitor is not None and visitor.is_admin,
                "sees_keys": visitor is not None and visitor.is_admin and self._logins.must_log_in,
                "sees_fleet": visitor is not None and visitor.is_admin and self._fleet is not None,
            }
        )


def mount(
    app: FastAPI,
    store: Store,
    keys: KeyRing,
    access: GatewayAccess,
    *,
    models: Callable[[], list[Any]],
    base_url: str,
    page: PageFiles | None = None,
    lease_s: float = LEASE_S,
    runs: Path = ROOT,
    evals: Path = Path("evals"),
    arena: ArenaSettings | None = None,
    fleet: FleetOfGateway | None = None,
    certificate: str | None = None,
    check_prompt: CheckPrompt | None = None,
    guests: GuestPolicy | None = None,
    user_header: str | None = None,
    said: Store | None = None,
    images: ImageLimits | None = None,
) -> Application:
    """Put the page at / and its application at /api. `models` gives the rows of /v1/models, `base_url` is the /v1 of
    this gateway, `runs` is where training runs lie and `evals` where evaluation runs do, `fleet` are its workers,
    `certificate` is the sha256 of its TLS certificate, `check_prompt` refuses prompts of battles, `guests` lets
    visitors in without a key, `user_header` is where trusted proxies name users, `said` holds chats and battles
    instead of `store`, `images` bounds the images of messages. What comes back has to be started and stopped with the
    gateway.
    """
    arena = arena or ArenaSettings()
    application = Application(
        store,
        keys,
        access,
        models,
        base_url,
        lease_s,
        runs,
        evals,
        arena,
        fleet,
        certificate,
        check_prompt,
        guests,
        user_header,
        said or store,
        images or ImageLimits(),
    )
    app.mount("/api", application.api())
    app.router.routes.extend((page or PageFiles()).routes())
    return application


def refusal(error: ChakuError) -> Response:
    """An error as the page is told of it."""
    response = json_response({"error": shapes.show_error(error)}, error.http_status)
    if error.retry_after_s is not None:
        response.headers["retry-after"] = str(max(1, round(error.retry_after_s)))
    return response


async def _refuse_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = {404: NotFound, 405: MethodNotAllowed}.get(error.status_code, InvalidRequest)
    response = refusal(kind(f"{request.method} {request.url.path}: {error.detail}"))
    response.headers.update({**(error.headers or {}), **SECURITY_HEADERS})
    return response
