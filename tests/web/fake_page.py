"""The page's server without gateway or store: canned answers in memory, in a thread, for tests and the page's bench."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Iterator
from types import SimpleNamespace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from chaku.errors import ChakuError
from chaku.web.eval_runs import EvalRuns
from chaku.web.fleet import FleetPage
from chaku.web.machine import Machine
from chaku.web.page import PageFiles
from web.fake_answers import FakeAnswers, event
from web.fake_world import World, row
from web.page_host import PageHost

page_files = functools.cache(PageFiles)  # they are read and compressed once


class FakePage:
    """The server's answers. Stopping it breaks every connection, and half answers are found failed by the next one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.url = ""
        self._listeners: set[asyncio.Queue[dict[str, Any]]] = set()
        self._answers = FakeAnswers(world, self._tell)
        self._loop: asyncio.AbstractEventLoop

    @contextlib.contextmanager
    def running(self, port: int = 0) -> Iterator[FakePage]:
        """Serve on loopback until the block ends."""
        with PageHost().running(port) as host, self.shown_by(host):
            yield self

    @contextlib.contextmanager
    def shown_by(self, host: PageHost) -> Iterator[FakePage]:
        """Let this server answer at its address until the block ends."""
        for chat in self.world.chats.values():
            for message in chat["messages"]:
                if message["state"] == "streaming":
                    error = {"message": "the gateway was restarted", "code": "restarted"}
                    message |= {"state": "failed", "error": error}
        self.url, self._loop = host.url, host.loop
        with host.showing(self._app(), self._answers.cancel):
            yield self

    def announce(self, event: dict[str, Any]) -> None:
        """Tell every open page something, from any thread. Models are so from now on."""
        if event["type"] == "models":
            self.world.models[:] = event["models"]
        self._loop.call_soon_threadsafe(self._tell, event)

    def _tell(self, event: dict[str, Any]) -> None:
        for queue in self._listeners:
            queue.put_nowait(event)

    def _app(self) -> Starlette:
        chat = "/api/chats/{chat}"
        routes = [
            Route("/api/session", self._session),
            Route("/api/login", self._login, methods=["POST"]),
            Route("/api/guest", self._guest, methods=["POST"]),
            Route("/api/models", lambda _: answer_json({"models": self.world.models})),
            Route("/api/chats", self._chats, methods=["GET", "POST"]),
            Route("/api/compare/votes", self._vote, methods=["POST"]),
            Route("/api/events", self._events),
            Route("/api/export", self._export),
            Route("/api/import", self._import, methods=["POST"]),
            Route(chat, self._chat, methods=["GET", "PATCH", "DELETE"]),
            Route(f"{chat}/restore", self._restore, methods=["POST"]),
            Route(f"{chat}/export", lambda _: PlainTextResponse('{"messages": []}\n')),
            Route(f"{chat}/messages", self._message, methods=["POST"]),
            Route(f"{chat}/answers", self._answer, methods=["POST"]),
            Route(f"{chat}/messages/{{message}}", self._delete_message, methods=["DELETE"]),
            Route(f"{chat}/messages/{{message}}/restore", self._restore_message, methods=["POST"]),
            Route(f"{chat}/messages/{{message}}/edit", self._edit, methods=["POST"]),
            Route(f"{chat}/messages/{{message}}/continue", self._continue, methods=["POST"]),
            Route(f"{chat}/messages/{{message}}/feedback", self._feedback, methods=["PUT", "DELETE"]),
            Route(f"{chat}/messages/{{message}}/stop", self._stop, methods=["POST"]),
            Route(f"{chat}/messages/{{message}}/stream", self._stream),
            *(
                Route(f"/api{path}", local(handler), methods=[method])
                for part in (
                    Machine(self.world.runs),
                    EvalRuns(self.world.evals, self.world.store),
                    FleetPage(self.world.fleet, lambda action, worker, by: None),
                )
                for method, path, handler in part.routes()
            ),
            *page_files().routes(),
        ]
        return Starlette(routes=routes, exception_handlers={ChakuError: refused})

    async def _session(self, request: Request) -> Response:
        key = self.world.key
        is_in = key is None or request.cookies.get("chaku_session") == key
        user = {"name": "me", "kind": "key" if key else "local"} if is_in else None
        notice = None if is_in else self.world.guest_notice
        known = {"version": "0.0.0", "login_required": key is not None, "user": user, "guest_notice": notice}
        is_local = is_in and key is None
        return answer_json({**known, "sees_keys": False, "sees_runs": is_local, "sees_fleet": is_local})

    async def _guest(self, request: Request) -> Response:
        response = Response(status_code=204)
        response.set_cookie("chaku_session", self.world.key or "", httponly=True, samesite="strict")
        return response

    async def _login(self, request: Request) -> Response:
        if (await request.json())["key"] != self.world.key:
            return refusal(401, "That key is not known here.", "invalid_api_key")
        response = answer_json({})
        response.set_cookie("chaku_session", self.world.key or "", httponly=True, samesite="strict")
        return response

    async def _chats(self, request: Request) -> Response:
        if request.method == "POST":
            chat = self.world.new_chat(await request.json())
            self._tell({"type": "chat", "chat": row(chat)})
            return answer_json(row(chat))
        query = request.query_params.get("query", "").lower()
        found = [chat for chat in self.world.chats.values() if query in json.dumps(chat).lower()]
        found.sort(key=lambda chat: (chat["pinned"], chat["updated_at"]), reverse=True)
        return answer_json({"chats": [hit(chat, query) for chat in found], "next": None})

    async def _vote(self, request: Request) -> Response:
        self.world.requests.append(("vote", await request.json()))
        return answer_json({"kept": 1}, 201)

    async def _export(self, request: Request) -> Response:
        self.world.requests.append(("export", dict(request.query_params)))
        return PlainTextResponse("{}\n")

    async def _import(self, request: Request) -> Response:
        lines = (await request.body()).splitlines()
        for line in lines:
            self.world.add_chat(json.loads(line).get("title", "imported"))
        return answer_json({"imported": len(lines), "skipped": self.world.skipped, "repaired": self.world.repaired})

    async def _chat(self, request: Request) -> Response:
        chat = self.world.chats.get(request.path_params["chat"])
        if chat is None:
            return refusal(404, "There is no such chat.", "not_found")
        if request.method == "GET":
            return answer_json(chat)
        if request.method == "DELETE":
            self.world.deleted[chat["id"]] = self.world.chats.pop(chat["id"])
            self._tell({"type": "chat_deleted", "id": chat["id"]})
            return Response(status_code=204)
        chat |= await request.json()
        self._tell({"type": "chat", "chat": row(chat)})
        return answer_json(row(chat))

    async def _restore(self, request: Request) -> Response:
        chat = self.world.deleted.pop(request.path_params["chat"])
        self.world.chats[chat["id"]] = chat
        self._tell({"type": "chat", "chat": row(chat)})
        return answer_json(row(chat))

    async def _message(self, request: Request) -> Response:
        chat, body = self.world.chats[request.path_params["chat"]], await request.json()
        self.world.requests.append(("message", body))
        user = self.world.new_message(chat, body["parent_id"], "user", body["content"])
        chat["title"] = chat["title"] or str(body["content"]).split("\n")[0]
        return answer_json({"user": user, "answer": self._answers.begin(chat, user, body)})

    async def _answer(self, request: Request) -> Response:
        chat, body = self.world.chats[request.path_params["chat"]], await request.json()
        self.world.requests.append(("answer", body))
        user = next(m for m in chat["messages"] if m["id"] == body["parent_id"])
        return answer_json({"answer": self._answers.begin(chat, user, body)})

    async def _stop(self, request: Request) -> Response:
        chat = self.world.chats[request.path_params["chat"]]
        message = next(m for m in chat["messages"] if m["id"] == request.path_params["message"])
        if message["state"] == "streaming":
            message["state"] = "stopped"
        return answer_json({"answer": message})

    def _addressed(self, request: Request) -> tuple[dict[str, Any], dict[str, Any]]:
        chat = self.world.chats[request.path_params["chat"]]
        return chat, next(m for m in chat["messages"] if m["id"] == request.path_params["message"])

    async def _edit(self, request: Request) -> Response:
        chat, old = self._addressed(request)
        content = (await request.json())["content"]
        fields = {"model": old["model"], "finish_reason": "edited"}
        return answer_json({"message": self.world.new_message(chat, old["parent_id"], old["role"], content, **fields)})

    async def _delete_message(self, request: Request) -> Response:
        chat, message = self._addressed(request)
        below = {message["id"]}
        for other in chat["messages"]:
            if other["parent_id"] in below:
                below.add(other["id"])
        gone = [other for other in chat["messages"] if other["id"] in below]
        self.world.deleted[message["id"]] = {"messages": gone}
        chat["messages"] = [other for other in chat["messages"] if other["id"] not in below]
        chat["leaf_id"] = message["parent_id"]
        self._tell({"type": "messages", "chat_id": chat["id"]})
        return answer_json({"deleted": [other["id"] for other in gone], "leaf_id": chat["leaf_id"]})

    async def _restore_message(self, request: Request) -> Response:
        chat = self.world.chats[request.path_params["chat"]]
        chat["messages"] += self.world.deleted.pop(request.path_params["message"])["messages"]
        chat["leaf_id"] = chat["messages"][-1]["id"]
        self._tell({"type": "messages", "chat_id": chat["id"]})
        return answer_json({"leaf_id": chat["leaf_id"]})

    async def _feedback(self, request: Request) -> Response:
        chat, message = self._addressed(request)
        if request.method == "DELETE":
            message["feedback"] = None
            return Response(status_code=204)
        body = {"reasons": [], **await request.json()}
        if body.get("consent") is None and self.world.consent is None:
            return refusal(400, "nobody has said yet whether ratings may be used as data", "consent_needed")
        self.world.consent = body.get("consent", self.world.consent)
        message["feedback"] = {**body, "consent": self.world.consent, "created_at": self.world.now()}
        self._tell({"type": "message", "chat_id": chat["id"], "message": {**message, "content": ""}})
        return answer_json({"feedback": message["feedback"]})

    async def _continue(self, request: Request) -> Response:
        chat, message = self._addressed(request)
        body = await request.json()
        self.world.requests.append(("continue", body))
        return answer_json({"answer": self._answers.resume(chat, message, body["model"])})

    async def _stream(self, request: Request) -> Response:
        _, message = self._addressed(request)
        after = request.query_params.get("after")
        events = self._answers.events(message, int(after) if after else None)
        return StreamingResponse(events, media_type="text/event-stream")

    async def _events(self, request: Request) -> Response:
        queue: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._listeners.add(queue)

        async def events() -> AsyncIterator[str]:
            try:
                if "after" in request.query_params:
                    yield event(0, {"type": "missed"})
                yield event(0, {"type": "models", "models": self.world.models})
                while True:
                    yield event(0, await queue.get())
            finally:
                self._listeners.discard(queue)

        return StreamingResponse(events(), media_type="text/event-stream")


def answer_json(content: Any, status: int = 200) -> Response:
    """JSON in ASCII: half a character is a text that a model can write, and UTF-8 can't."""
    return Response(json.dumps(content), status, media_type="application/json")


def local(handler: Any) -> Any:
    """A handler of the real application, for the user of this machine."""

    async def handle(request: Request) -> Response:
        request.state.visitor = SimpleNamespace(key_id=None, is_admin=True)
        return await handler(request)

    return handle


async def refused(request: Request, error: Any) -> Response:
    return refusal(error.http_status, error.message, error.code)


def hit(chat: dict[str, Any], query: str) -> dict[str, Any]:
    """A chat in the list; where the query is in a message, with that message."""
    for message in reversed(chat["messages"]):
        text = message["content"]
        if query and isinstance(text, str) and query in text.lower():
            at = text.lower().find(query)
            return {**row(chat), "message_id": message["id"], "snippet": text[max(0, at - 50) : at + 110]}
    return row(chat)


def refusal(status: int, message: str, code: str) -> Response:
    """An error in OpenAI's shape."""
    return answer_json({"error": {"message": message, "type": "x", "param": None, "code": code}}, status)
