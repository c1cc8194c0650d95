"""The page's server without gateway or store: canned answers in memory, in a thread, for tests and the page's bench."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import json
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
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
from web.fake_fleet import FakeFleet
from web.page_host import PageHost

page_files = functools.cache(PageFiles)  # they are read and compressed once


@dataclass
class Saying:
    """What is answered to one prompt."""

    text: str
    reasoning: str = ""
    chunk: int = 5
    """Characters in one piece."""
    delay_s: float = 0.0
    """Between the pieces; with 0 they come as fast as they can."""
    error: dict[str, Any] | None = None
    limit: int | None = None
    """Characters after which the answer is cut off, as by a token limit."""
    gate: threading.Event | None = None
    """The last piece waits until it is set."""


def model(name: str, **fields: Any) -> dict[str, Any]:
    """A row of /v1/models."""
    known = {
        "state": "ready",
        "detail": "",
        "progress": None,
        "context_tokens": 8192,
        "slots": 4,
        "num_parameters": None,
        "capabilities": [],
    }
    row = {"id": name, "object": "model", "created": 1_800_000_000, "owned_by": "chaku", "running": 0, "waiting": 0}
    return {**row, **known, **fields}


@dataclass
class World:
    """All that this server knows; it outlives the server, as a database would."""

    models: list[dict[str, Any]] = field(default_factory=lambda: [model("vicuna-7b"), model("alpaca-7b")])
    sayings: dict[str, Saying] = field(default_factory=dict)
    key: str | None = None
    guest_notice: list[str] | None = None
    consent: bool | None = None
    runs: Path = Path("/nonexistent")
    evals: Path = Path("/nonexistent")
    store: Any = None
    """Where disagreements with a judge are kept."""
    fleet: FakeFleet = field(default_factory=FakeFleet)
    chats: dict[str, dict[str, Any]] = field(default_factory=dict)
    deleted: dict[str, dict[str, Any]] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    """What an import leaves out, and what it repairs."""
    repaired: dict[str, int] = field(default_factory=dict)
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def say(self, prompt: str, text: str, **fields: Any) -> None:
        """Answer `prompt` with `text` from now on."""
        self.sayings[prompt] = Saying(text, **fields)

    def say_as(self, model: str, prompt: str, text: str, **fields: Any) -> None:
        """Answer `prompt` with `text` where this model is asked."""
        self.sayings[f"{model}\n{prompt}"] = Saying(text, **fields)

    def add_chat(self, title: str, messages: list[tuple[str, str]] = (), **fields: Any) -> str:  # type: ignore[assignment]
        """A chat that was held before, as (role, text) pairs. Returns its id."""
        chat = self.new_chat({"title": title, "model": self.models[0]["id"], **fields})
        parent = None
        for role, text in messages:
            parent = self.new_message(chat, parent, role, text)["id"]
        return str(chat["id"])

    def new_chat(self, fields: dict[str, Any]) -> dict[str, Any]:
        number = next(self.ids)
        known = {"title": "", "pinned": False, "system": None, "model": None, "settings": {}, "leaf_id": None}
        chat = {"id": f"c{number}", **known, **fields, "created_at": self.now(), "messages": []}
        chat.setdefault("updated_at", self.now())
        self.chats[chat["id"]] = chat
        return chat

    def new_message(self, chat: dict[str, Any], parent: str | None, role: str, content: Any, **fields: Any) -> Any:
        known = {"reasoning": None, "model": None, "settings": {}, "state": "complete", "finish_reason": None}
        message = {"id": f"m{next(self.ids):06}", "parent_id": parent, "role": role, "content": content, **known}
        message |= {"usage": None, "timings": None, "error": None, "extra": None, "feedback": None}
        message |= {"created_at": self.now(), **fields}
        chat["messages"].append(message)
        chat["leaf_id"] = message["id"]
        return message

    def now(self) -> str:
        return (datetime.now(UTC) + timedelta(microseconds=next(self.ids))).isoformat()


class FakePage:
    """The server's answers. Stopping it breaks every connection, and half answers are found failed by the next one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.url = ""
        self._listeners: set[asyncio.Queue[dict[str, Any]]] = set()
        self._streams: dict[str, list[dict[str, Any]]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()
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
        with host.showing(self._app(), self._cancel):
            yield self

    def _cancel(self) -> None:
        for task in self._tasks:
            task.cancel()

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
        return answer_json({"user": user, "answer": self._begin(chat, user, body)})

    async def _answer(self, request: Request) -> Response:
        chat, body = self.world.chats[request.path_params["chat"]], await request.json()
        self.world.requests.append(("answer", body))
        user = next(m for m in chat["messages"] if m["id"] == body["parent_id"])
        return answer_json({"answer": self._begin(chat, user, body)})

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
        user = next(m for m in chat["messages"] if m["id"] == message["parent_id"])
        said, saying = message["content"], self._saying(user, body["model"])
        message |= {"state": "streaming", "finish_reason": None, "error": None}
        self._start(chat, message, replace(saying, text=saying.text.removeprefix(said), limit=None))
        return answer_json({"answer": dict(message)})

    def _saying(self, user: dict[str, Any], model: str) -> Saying:
        content = user["content"]
        prompt = content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
        sayings = self.world.sayings
        return sayings.get(f"{model}\n{prompt}") or sayings.get(prompt) or Saying(f"You said: {prompt[:1000]}")

    def _begin(self, chat: dict[str, Any], user: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        answer = self.world.new_message(chat, user["id"], "assistant", "", model=body["model"], state="streaming")
        chat["updated_at"] = self.world.now()
        self._start(chat, answer, self._saying(user, body["model"]))
        return dict(answer)

    def _start(self, chat: dict[str, Any], answer: dict[str, Any], saying: Saying) -> None:
        self._streams[answer["id"]], self._news[answer["id"]] = [], asyncio.Event()
        task = asyncio.create_task(self._speak(chat, answer, saying))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._tell({"type": "chat", "chat": row(chat)})
        self._tell({"type": "message", "chat_id": chat["id"], "message": {**answer, "content": ""}})

    async def _speak(self, chat: dict[str, Any], answer: dict[str, Any], saying: Saying) -> None:
        loop = asyncio.get_running_loop()
        start = loop.time()
        pieces = [("reasoning", piece) for piece in cut(saying.reasoning, saying.chunk)]
        pieces += [("content", piece) for piece in cut(saying.text[: saying.limit], saying.chunk)]
        first = None
        for number, (kind, piece) in enumerate(pieces, 1):
            await asyncio.sleep(saying.delay_s)
            while saying.gate and number == len(pieces) and not saying.gate.is_set():
                await asyncio.sleep(0.01)
            if answer["state"] != "streaming":
                break
            first = first or loop.time() - start
            answer[kind] = (answer[kind] or "") + piece
            self._put(answer["id"], {"type": "delta", kind: piece})
        duration = max(loop.time() - start, 1e-3)
        if answer["state"] == "streaming":
            answer["state"] = "failed" if saying.error else "complete"
        answer["error"] = saying.error
        tokens = len(pieces)
        answer["usage"] = {"prompt_tokens": 12, "completion_tokens": tokens, "cached_tokens": 0}
        answer["timings"] = {"first_token_s": first, "duration_s": duration, "tokens_per_s": tokens / duration}
        answer["finish_reason"] = "length" if saying.limit is not None else "stop"
        self._put(answer["id"], {"type": "failed" if saying.error else "done", "message": dict(answer)})
        self._tell({"type": "message", "chat_id": chat["id"], "message": {**answer, "content": ""}})

    def _put(self, message: str, event: dict[str, Any]) -> None:
        self._streams[message].append(event)
        self._news[message].set()
        self._news[message] = asyncio.Event()

    async def _stream(self, request: Request) -> Response:
        chat = self.world.chats[request.path_params["chat"]]
        message = next(m for m in chat["messages"] if m["id"] == request.path_params["message"])
        after = request.query_params.get("after")

        async def events() -> AsyncIterator[str]:
            sent = int(after) if after else -1
            past = self._streams.get(message["id"])
            if past is None:  # said before this server began
                yield event(0, {"type": "snapshot", "message": message})
                yield event(1, {"type": "done" if message["state"] == "complete" else "failed", "message": message})
                return
            if sent < 0:
                sent = len(past)
                yield event(sent, {"type": "snapshot", "message": message})
                if message["state"] != "streaming":
                    yield event(sent, {"type": "done", "message": message})
                    return
            while True:
                waiting = self._news[message["id"]]
                new, sent = past[sent:], len(past)
                yield "".join(event(sent - len(new) + i + 1, item) for i, item in enumerate(new)) or ": here\n\n"
                if new and new[-1]["type"] != "delta":
                    return
                if len(past) == sent:
                    await waiting.wait()

        return StreamingResponse(events(), media_type="text/event-stream")

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


def cut(text: str, size: int) -> list[str]:
    """Pieces of `size` characters."""
    return [text[i : i + size] for i in range(0, len(text), size)]


def row(chat: dict[str, Any]) -> dict[str, Any]:
    """A chat without its messages."""
    return {key: value for key, value in chat.items() if key != "messages"}


def hit(chat: dict[str, Any], query: str) -> dict[str, Any]:
    """A chat in the list; where the query is in a message, with that message."""
    for message in reversed(chat["messages"]):
        text = message["content"]
        if query and isinstance(text, str) and query in text.lower():
            at = text.lower().find(query)
            return {**row(chat), "message_id": message["id"], "snippet": text[max(0, at - 50) : at + 110]}
    return row(chat)


def event(number: int, data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"id: {number}\ndata: {json.dumps(data)}\n\n"


def refusal(status: int, message: str, code: str) -> Response:
    """An error in OpenAI's shape."""
    return answer_json({"error": {"message": message, "type": "x", "param": None, "code": code}}, status)
