"""One request to its answer: choices that are generated side by side, as pieces and in OpenAI's shapes."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from chaku.chat.detokenize import StreamDetokenizer
from chaku.chat.stopping import StopStrings
from chaku.chat.tokenizer import Before, Tokenizer
from chaku.engines.transformers.generating import Generator
from chaku.engines.transformers.prompts import Prompt
from chaku.engines.transformers.sampling import Sampling, ScoredToken
from chaku.protocol.answers import AnswerFrame, CompletionUsage, completion_usage


@dataclass(frozen=True)
class Piece:
    """A part of one choice."""

    index: int
    text: str = ""
    scored: tuple[ScoredToken, ...] = ()
    finish_reason: str | None = None
    stop: str | None = None
    """The stop sequence that ended the text."""


@dataclass
class Choice:
    """One of the answers to one prompt."""

    index: int
    prompt: Prompt
    before: Before
    sampling: Sampling
    max_tokens: int
    ends: Collection[int]
    stops: Sequence[str]
    echo: tuple[str, tuple[ScoredToken, ...]] | None = None
    """The prompt's text, and its scores, where the answer repeats it."""
    num_tokens: int = field(default=0, init=False)
    """Tokens generated so far."""

    async def pieces(self, generator: Generator, tokenizer: Tokenizer) -> AsyncGenerator[Piece]:
        """The choice as it comes. The last piece has the finish reason."""
        if self.echo is not None:
            yield Piece(self.index, *self.echo)
        if self.max_tokens == 0:
            yield Piece(self.index, finish_reason="length")
            return
        text = StreamDetokenizer(tokenizer, self.before, skip_special=True)
        known = StreamDetokenizer(tokenizer, self.before)
        num_known = len(known.push(self.prompt.rechosen) + known.flush())  # characters that the caller has
        stopping = StopStrings(self.stops)
        scored, finish = [], "length"
        # tokens that are chosen again are not part of the answer's length
        budget = self.max_tokens + len(self.prompt.rechosen)
        async with aclosing(generator.ids(self.prompt.ids, self.sampling, budget, self.ends)) as ids:
            async for token_id in ids:
                is_rechosen = num_known > 0
                if self.sampling.num_top is not None:
                    entry = self.sampling.scored.pop(0)
                    scored += [] if is_rechosen else [entry]
                if token_id in self.ends:
                    finish = "stop"
                    self.num_tokens += 1
                    scored = scored[:-1]
                    break
                new = text.push([token_id])
                if is_rechosen:
                    new, num_known = new[num_known:], max(0, num_known - len(new))
                if not is_rechosen or new:
                    self.num_tokens += 1
                if shown := stopping.push(new):
                    yield Piece(self.index, shown, tuple(scored))
                    scored = []
                if stopping.stopped_by is not None:
                    yield Piece(self.index, finish_reason="stop", stop=stopping.stopped_by)
                    return
                if self.num_tokens >= self.max_tokens:
                    break
        rest = stopping.push(text.flush()) if stopping.stopped_by is None else ""
        rest += stopping.flush()
        if stopping.stopped_by is not None:
            yield Piece(self.index, rest, tuple(scored), finish_reason="stop", stop=stopping.stopped_by)
            return
        yield Piece(self.index, rest, tuple(scored), finish_reason=finish)


async def merged(choices: Sequence[Choice], generator: Generator, tokenizer: Tokenizer) -> AsyncGenerator[Piece]:
    """The pieces of all choices as they come. Raises the first failure, and ends the others."""
    if len(choices) == 1:
        async with aclosing(choices[0].pieces(generator, tokenizer)) as pieces:
            async for piece in pieces:
                yield piece
        return
    queue: asyncio.Queue[Piece | None] = asyncio.Queue()

    async def run(choice: Choice) -> None:
        try:
            async with aclosing(choice.pieces(generator, tokenizer)) as pieces:
                async for piece in pieces:
                    queue.put_nowait(piece)
        finally:
            queue.put_nowait(None)

    tasks = [asyncio.ensure_future(run(choice)) for choice in choices]
    try:
        num_running = len(tasks)
        while num_running:
            item = await queue.get()
            if item is not None:
                yield item
                continue
            num_running -= 1
            for task in tasks:
                if task.done():
                    task.result()
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class Shapes:
    """OpenAI's objects for one answer."""

    def __init__(self, model: str, tokenizer: Tokenizer, choices: Sequence[Choice], *, is_chat: bool) -> None:
        self._tokenizer, self._choices, self._is_chat = tokenizer, choices, is_chat
        self._frame = AnswerFrame(model, uuid.uuid4().hex, is_chat=is_chat)
        self._offsets = [0] * len(choices)

    @property
    def usage(self) -> CompletionUsage:
        """Tokens; the prompt of several answers counts once."""
        prompts = {id(choice.prompt): len(choice.prompt.ids) + len(choice.prompt.rechosen) for choice in self._choices}
        return completion_usage(sum(prompts.values()), sum(choice.num_tokens for choice in self._choices))

    def openings(self) -> list[dict[str, Any]]:
        """The first chunks of a chat's stream."""
        opening = {"role": "assistant", "content": ""}
        return [self._chunk({"index": choice.index, "delta": opening}) for choice in self._choices if self._is_chat]

    def chunk(self, piece: Piece) -> dict[str, Any]:
        """The chunk of a piece."""
        said = {"delta": {"content": piece.text} if piece.text else {}} if self._is_chat else {"text": piece.text}
        return self._chunk({"index": piece.index, **said}, piece)

    def usage_chunk(self) -> dict[str, Any]:
        """The chunk with the token counts."""
        return self._frame.usage_chunk(self.usage)

    def whole(self, pieces: Sequence[Piece]) -> dict[str, Any]:
        """The complete answer."""
        choices = []
        for choice in self._choices:
            own = [piece for piece in pieces if piece.index == choice.index]
            last = own[-1]
            whole = Piece(
                choice.index,
                "".join(piece.text for piece in own),
                tuple(token for piece in own for token in piece.scored),
                last.finish_reason,
                last.stop,
            )
            message = {"role": "assistant", "content": whole.text, "refusal": None}
            said = {"message": message} if self._is_chat else {"text": whole.text}
            choices.append({"index": choice.index, **said, **self._end(whole)})
        return self._frame.whole(choices, self.usage)

    def _chunk(self, choice: dict[str, Any], piece: Piece | None = None) -> dict[str, Any]:
        end = self._end(piece) if piece else {"finish_reason": None, "logprobs": None}
        return self._frame.chunk({**choice, **end})

    def _end(self, piece: Piece) -> dict[str, Any]:
        stop = {"stop_reason": piece.stop} if piece.stop is not None else {}
        return {"finish_reason": piece.finish_reason, "logprobs": self._logprobs(piece), **stop}

    def _logprobs(self, piece: Piece) -> dict[str, Any] | None:
        if not piece.scored:
            return None
        if self._is_chat:
            return {"content": [self._token(token) for token in piece.scored], "refusal": None}
        spellings = [self._spelling(token.token_id) for token in piece.scored]
        offsets = []
        for spelling in spellings:
            offsets.append(self._offsets[piece.index])
            self._offsets[piece.index] += len(spelling)
        return {
            "tokens": spellings,
            "token_logprobs": [token.logprob for token in piece.scored],
            "top_logprobs": [
                None
                if token.logprob is None
                else {self._spelling(other): value for other, value in reversed(token.top)}
                for token in piece.scored
            ],
            "text_offset": offsets,
        }

    def _token(self, token: ScoredToken) -> dict[str, Any]:
        top = [self._entry(token_id, logprob) for token_id, logprob in token.top]
        return {**self._entry(token.token_id, token.logprob), "top_logprobs": top}

    def _entry(self, token_id: int, logprob: float | None) -> dict[str, Any]:
        data = self._tokenizer.token_bytes(token_id)
        return {"token": data.decode(errors="replace"), "logprob": logprob, "bytes": list(data)}

    def _spelling(self, token_id: int) -> str:
        return self._tokenizer.token_bytes(token_id).decode(errors="replace")
