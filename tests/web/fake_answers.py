"""The answers that the page's stand-in server has under way: said piece by piece, and streamed to whoever reads."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

from web.fake_world import Saying, World, row


class FakeAnswers:
    """All answers of one server. `tell` hears what every open page is to hear."""

    def __init__(self, world: World, tell: Callable[[dict[str, Any]], None]) -> None:
        self.world = world
        self._tell = tell
        self._streams: dict[str, list[dict[str, Any]]] = {}
        self._news: dict[str, asyncio.Event] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, chat: dict[str, Any], user: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        """Answer a message of the user."""
        answer = self.world.new_message(chat, user["id"], "assistant", "", model=body["model"], state="streaming")
        chat["updated_at"] = self.world.now()
        self._start(chat, answer, self._saying(user, body["model"]))
        return dict(answer)

    def resume(self, chat: dict[str, Any], message: dict[str, Any], model: str) -> dict[str, Any]:
        """Continue an answer that was cut off."""
        user = next(m for m in chat["messages"] if m["id"] == message["parent_id"])
        said, saying = message["content"], self._saying(user, model)
        message |= {"state": "streaming", "finish_reason": None, "error": None}
        self._start(chat, message, replace(saying, text=saying.text.removeprefix(said), limit=None))
        return dict(message)

    def cancel(self) -> None:
        """Break all of them off."""
        for task in self._tasks:
            task.cancel()

    async def events(self, message: dict[str, Any], after: int | None) -> AsyncIterator[str]:
        """The server-sent events of an answer; `after` is the last one that the reader had."""
        sent = -1 if after is None else after
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

    def _saying(self, user: dict[str, Any], model: str) -> Saying:
        content = user["content"]
        prompt = content if isinstance(content, str) else " ".join(part.get("text", "") for part in content)
        sayings = self.world.sayings
        return sayings.get(f"{model}\n{prompt}") or sayings.get(prompt) or Saying(f"You said: {prompt[:1000]}")

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


def cut(text: str, size: int) -> list[str]:
    """Pieces of `size` characters."""
    return [text[i : i + size] for i in range(0, len(text), size)]


def event(number: int, data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"id: {number}\ndata: {json.dumps(data)}\n\n"
