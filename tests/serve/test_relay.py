"""What the relay makes of an engine's blocks, and how a stream's end is accounted for."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import orjson
import pytest

from chaku.engines.base import Answer, Block, Call
from chaku.engines.scripted import Script, ScriptedEngine
from chaku.serve.exchange import Exchange
from chaku.serve.relay import Relay
from chaku.serve.wires.openai import PassedThrough
from gateways import chat, gateway
from processes import PATIENCE_S

ROLE = Block(b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n')
WORD = Block(b'data: {"choices":[{"delta":{"content":"hi"}}]}\n\n', num_tokens=1)
USAGE = Block(
    b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4}}\n\n',
    usage={"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    is_usage_only=True,
)
DONE = Block(b"data: [DONE]\n\n", is_last=True)


async def relayed(*blocks: Block, shows_usage: bool = False) -> tuple[Exchange, list[dict], bytes]:
    sent: list[dict] = []

    async def send(message) -> None:
        sent.append(dict(message))

    exchange = Exchange("r", "chat")
    relay = Relay(exchange, send, [(b"x-request-id", b"r")], PassedThrough({}, True, (), shows_usage))
    for block in blocks:
        await relay.block(block, ())
    await relay.end()
    return exchange, sent, b"".join(message.get("body", b"") for message in sent)


async def test_bytes_pass_through_untouched_and_the_last_ones_end_the_response() -> None:
    exchange, sent, body = await relayed(ROLE, WORD, WORD, DONE)
    assert body == ROLE.data + 2 * WORD.data + DONE.data
    assert [message.get("more_body") for message in sent[1:]] == [True, True, True, False]
    assert exchange.is_complete
    assert (b"x-request-id", b"r") in sent[0]["headers"]


async def test_usage_is_noted_and_shown_only_when_asked() -> None:
    exchange, _, body = await relayed(WORD, USAGE, DONE)
    assert body == WORD.data + DONE.data
    assert (exchange.prompt_tokens, exchange.completion_tokens) == (3, 1)
    _, sent, body = await relayed(WORD, USAGE, DONE, shows_usage=True)
    assert body == WORD.data + USAGE.data + DONE.data
    assert sent[-1]["more_body"] is False


async def test_usage_beside_choices_stays() -> None:
    both = Block(WORD.data, num_tokens=1, usage={"prompt_tokens": 2, "completion_tokens": 1, "total_tokens": 3})
    exchange, _, body = await relayed(both, DONE)
    assert body == both.data + DONE.data
    assert exchange.prompt_tokens == 2


async def test_the_first_token_is_the_first_piece_of_text_not_the_role() -> None:
    exchange, _, _ = await relayed(ROLE, DONE)
    assert exchange.first_token_s is None
    exchange, _, _ = await relayed(ROLE, WORD, DONE)
    assert exchange.first_token_s is not None


class SlowToLetGo(ScriptedEngine):
    """Takes a moment to tidy up after its answer, as an engine with slots to wait for does."""

    @contextlib.asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        async with super().ask(call) as answer:
            yield answer
            await asyncio.sleep(0.1)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_closes_after_a_whole_answer_has_not_hung_up(stream: bool) -> None:
    async with gateway(SlowToLetGo("scripted", Script())) as g:
        port = int(g.url.rsplit(":", 1)[1])
        body = orjson.dumps(chat("one two", stream=stream))
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await reader.readuntil(b"[DONE]" if stream else b'"usage"')
        writer.close()
        async with asyncio.timeout(PATIENCE_S):
            while not g.exchanges:
                await asyncio.sleep(0.01)
    assert [(e.status, e.completion_tokens) for e in g.exchanges] == [(200, 4)]
