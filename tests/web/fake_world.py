"""What the page's stand-in server knows and says: models, chats, and an answer for each prompt."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from web.fake_fleet import FakeFleet


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


def row(chat: dict[str, Any]) -> dict[str, Any]:
    """A chat without its messages."""
    return {key: value for key, value in chat.items() if key != "messages"}
