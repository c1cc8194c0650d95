"""A loopback server whose models are functions of the request, which counts what it was asked."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from fake_openai import FakeServer, whole

Model = Callable[[dict[str, Any]], str]
"""A request's body to the answer's text."""


class ModelServer(FakeServer):  # type: ignore[misc] # the rig has no types
    """`models` maps a name to its function; `delay_s` is how long an answer takes."""

    def __init__(self, models: dict[str, Model], *, delay_s: float = 0.0) -> None:
        super().__init__()
        self.functions = models
        self.models = list(models)
        self.delay_s = delay_s
        self.asked: Counter[str] = Counter()
        """How often each distinct request came."""
        self.keys: Counter[str] = Counter()
        """How often each Authorization came."""
        self.num_running = self.most_running = 0

    def calls_to(self, model: str) -> int:
        """Requests to one model."""
        return sum(count for body, count in self.asked.items() if json.loads(body)["model"] == model)

    async def _chat(self, request: Any) -> Any:
        body = await request.json()
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        try:
            await asyncio.sleep(self.delay_s)
            if self.script:
                return await self.script.popleft()(request, self)
            self.keys[request.headers.get("Authorization", "")] += 1
            self.asked[json.dumps(body, sort_keys=True)] += 1
            return await whole({"content": self.functions[body["model"]](body)})(request, self)
        finally:
            self.num_running -= 1


def last_message(body: dict[str, Any]) -> str:
    """What the user said last."""
    return str(body["messages"][-1]["content"])
