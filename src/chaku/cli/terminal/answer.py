"""One answer: asked for, shown while it comes, timed, and stopped when told to."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chaku.cli.terminal.transcript import Transcript
from chaku.cli.terminal.view import View
from chaku.client import Client, TokenUsage
from chaku.errors import AuthenticationFailed, ChakuError, ContextOverflow, NotFound
from chaku.nearest import did_you_mean


@dataclass
class ShownAnswer:
    """What has come so far; whole once `finish_reason` is there."""

    text: str = ""
    reasoning: str = ""
    tool_calls: dict[int, dict[str, str]] = field(default_factory=dict)
    finish_reason: str | None = None
    usage: TokenUsage | None = None
    num_deltas: int = 0
    first_token_s: float | None = None
    total_s: float = 0.0

    @property
    def num_tokens(self) -> int:
        """As the server counted; for a stopped answer, which has no usage, the number of deltas."""
        return self.usage.completion_tokens if self.usage else self.num_deltas

    @property
    def tokens_per_s(self) -> float | None:
        """Decoding speed after the first token; None where one token or fewer came."""
        if self.first_token_s is None or self.num_tokens < 2 or self.total_s <= self.first_token_s:
            return None
        return (self.num_tokens - 1) / (self.total_s - self.first_token_s)


async def ask(
    client: Client, transcript: Transcript, model: str, sampling: Mapping[str, Any], view: View, answer: ShownAnswer
) -> None:
    """Fill `answer` and show it. What has come stays in `answer` when this is cancelled or raises."""
    start = time.monotonic()
    with view:
        drawing = asyncio.create_task(_keep_drawing(view))
        try:
            stream = client.stream(transcript.to_send(), model, **sampling)
            async with contextlib.aclosing(stream) as deltas:
                async for delta in deltas:
                    if (delta.text or delta.reasoning or delta.tool_calls) and answer.first_token_s is None:
                        answer.first_token_s = time.monotonic() - start
                    answer.num_deltas += bool(delta.text or delta.reasoning or delta.tool_calls)
                    answer.text += delta.text
                    answer.reasoning += delta.reasoning
                    answer.finish_reason = delta.finish_reason or answer.finish_reason
                    answer.usage = delta.usage or answer.usage
                    for part in delta.tool_calls:
                        call = answer.tool_calls.setdefault(part.index, {"id": "", "name": "", "arguments": ""})
                        call["id"] = part.id or call["id"]
                        call["name"] = part.name or call["name"]
                        call["arguments"] += part.arguments
                    view.reasoning(delta.reasoning) if delta.reasoning else view.text(delta.text)
        finally:
            answer.total_s = time.monotonic() - start
            drawing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await drawing


async def _keep_drawing(view: View) -> None:
    while True:
        view.draw()
        await asyncio.sleep(view.frame_s)


async def with_way_out(failure: ChakuError, client: Client, model: str) -> ChakuError:
    """The same error, with a fix that fits a person at a terminal where the server gave none."""
    if failure.fix:
        return failure
    if isinstance(failure, AuthenticationFailed):
        failure.fix = "give the key with --api-key KEY, or set OPENAI_API_KEY (for another server: OPENAI_BASE_URL too)"
    elif isinstance(failure, ContextOverflow):
        failure.fix = "shorten it: fewer or shorter messages, or a lower max_tokens"
    elif isinstance(failure, NotFound):
        try:
            models = await client.models()
        except ChakuError:
            return failure  # the first error says more than why the list did not come
        if models and model not in models:
            failure.fix = did_you_mean(model, models, f"models here: {', '.join(models[:10])}", likeness=0.5)
    return failure
