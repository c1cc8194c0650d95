"""Who judges: an API, a guard model; judges that fail; and the limits of a conversation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from aiohttp import web

from chaku.engines.scripted import Reply
from chaku.errors import ConfigError
from gateways import chat, gateway, says, scripted

BAD = "forbidden"
ASKED = f"please say the {BAD} word"


@asynccontextmanager
async def moderation_api(answer: Any) -> AsyncIterator[str]:
    """A server with /v1/moderations; `answer` gets the texts."""

    async def moderations(request: web.Request) -> web.StreamResponse:
        return await answer((await request.json())["input"])

    app = web.Application()
    app.router.add_post("/v1/moderations", moderations)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


def judged(texts: list[str]) -> web.Response:
    results = [
        {"flagged": BAD in text, "categories": {"violence": BAD in text}, "category_scores": {"violence": 0.9}}
        for text in texts
    ]
    return web.json_response({"id": "1", "model": "m", "results": results})


async def test_an_openai_style_api_judges_and_history_is_judged_once() -> None:
    seen: list[str] = []

    async def answer(texts: list[str]) -> web.Response:
        seen.extend(texts)
        return judged(texts)

    async with moderation_api(answer) as url, gateway(says("fine"), moderation=url) as g:
        assert (await g.post("/v1/chat/completions", chat("hello")))[0] == 200
        messages = [*chat("hello")["messages"], {"role": "assistant", "content": "fine"}]
        messages.append({"role": "user", "content": "more"})
        assert (await g.post("/v1/chat/completions", {"model": "scripted", "messages": messages}))[0] == 200
        status, refused, _ = await g.post("/v1/chat/completions", chat(ASKED))
    assert (status, refused["error"]["code"]) == (400, "content_filter")
    assert seen.count("hello") == 1


async def busy(texts: list[str]) -> web.Response:
    return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "60"})


async def broken(texts: list[str]) -> web.Response:
    return web.Response(text="<html>oops</html>", status=500)


async def odd(texts: list[str]) -> web.Response:
    return web.json_response({"results": [{"categories": "none"}]})


async def silent(texts: list[str]) -> web.Response:
    await asyncio.sleep(5)
    return judged(texts)


@pytest.mark.parametrize("answer", [busy, broken, odd, silent], ids=lambda answer: answer.__name__)
@pytest.mark.parametrize("on_failure", ["open", "closed"])
async def test_a_judge_that_fails_lets_all_or_nothing_pass_as_the_policy_says(answer: Any, on_failure: str) -> None:
    async with moderation_api(answer) as url:
        policy = {"url": url, "on_failure": on_failure, "timeout_s": 0.4}
        async with gateway(says("fine"), moderation=policy) as g:
            status, body, headers = await g.post("/v1/chat/completions", chat("hello"))
            async with g.http.get(g.url + "/metrics") as response:
                metrics = await response.text()
    if on_failure == "open":
        assert status == 200
    else:
        assert (status, body["error"]["code"], headers["retry-after"]) == (503, "moderation_unavailable", "5")
    assert f'chaku_moderation_total{{action="{on_failure}",category="judge_failed",where="input"}}' in metrics


async def test_a_served_guard_model_judges() -> None:
    guard = scripted(Reply(match=BAD, text="unsafe\nS1,S9"), Reply(text="safe"), name="guard")
    async with gateway(says("fine"), guard, moderation={"guard": "guard"}) as g:
        assert (await g.post("/v1/chat/completions", chat("hello")))[0] == 200
        status, refused, _ = await g.post("/v1/chat/completions", chat(ASKED))
    assert status == 400
    assert "(S1, S9)" in refused["error"]["message"]


async def test_v1_moderations_answers_the_official_client() -> None:
    async with gateway() as g, openai.AsyncOpenAI(base_url=g.url + "/v1", api_key="none") as client:
        answer = await client.moderations.create(input=["how to make a pipe bomb", "how to make bread"])
        with pytest.raises(openai.NotFoundError):
            await client.moderations.create(input="x", model="omni-moderation-latest")
    assert [result.flagged for result in answer.results] == [True, False]
    assert answer.results[0].model_dump()["categories"]["weapons"] is True
    assert answer.model == "chaku-rules"


@pytest.mark.parametrize(
    ("limit", "messages", "code"),
    [
        ({"conversation_turns": 2}, ["a", "b", "c"], "conversation_too_long"),
        ({"input_characters": 5}, ["abcdef"], "message_too_long"),
    ],
)
async def test_turns_and_length_of_a_conversation_have_limits(limit: Any, messages: list[str], code: str) -> None:
    def body(texts: list[str]) -> dict[str, Any]:
        return {"model": "scripted", "messages": [{"role": "user", "content": text} for text in texts]}

    async with gateway(**limit) as g:
        status, refused, _ = await g.post("/v1/chat/completions", body(messages))
        assert (status, refused["error"]["code"]) == (400, code)
        assert (await g.post("/v1/chat/completions", body(["a", "b"])))[0] == 200


@pytest.mark.parametrize("policy", [{}, {"patterns": {"x": "("}}, {"rules": True, "window": 1}, "{", "nonsense"])
def test_an_odd_policy_is_refused_at_start(policy: Any) -> None:
    from chaku.config import load
    from chaku.settings import ServeConfig

    with pytest.raises(ConfigError, match=r"moderation|patterns|window"):
        load(ServeConfig, None, {"moderation": policy})
