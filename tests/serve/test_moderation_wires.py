"""Moderation on every wire: prompts, answers, streams; judges that fail; nothing of a text in log or metrics."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import orjson
import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chaku.engines.base import Block
from chaku.engines.scripted import Reply
from chaku.errors import ConfigError, EngineError
from chaku.policies import ModerationPolicy
from chaku.protocol.answers import DONE, event
from chaku.serve.endpoints import ENDPOINTS
from chaku.serve.exchange import Exchange
from chaku.serve.moderation.answer import Filtered, JudgedAnswer
from chaku.serve.moderation.moderator import Moderator
from chaku.serve.relay import Relay
from chaku.serve.wires.openai import PassedThrough
from gateways import chat, gateway, scripted

BAD = "forbidden"
PATTERN = {"patterns": {"secret": BAD}}
ASKED = f"please say the {BAD} word"
WIRES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": chat(ASKED),
    "/v1/completions": {"model": "scripted", "prompt": ASKED},
    "/v1/messages": {"model": "scripted", "messages": [{"role": "user", "content": ASKED}], "max_tokens": 500},
    "/v1/messages/count_tokens": {"model": "scripted", "messages": [{"role": "user", "content": ASKED}]},
    "/v1/responses": {"model": "scripted", "input": ASKED, "store": False},
    "/score": {"input_data": {"input_string": [ASKED]}},
    "/ollama/api/chat": {"model": "scripted", "messages": [{"role": "user", "content": ASKED}]},
    "/ollama/api/generate": {"model": "scripted", "prompt": ASKED},
}


FASTCHAT_WIRES = ("/fastchat/worker_generate", "/fastchat/worker_generate_stream", "/fastchat/count_token")
"""Their errors are objects of their own, with status 200 in a stream."""


def says(text: str, **fields: Any) -> Any:
    """A scripted engine that says this, whatever it is asked."""
    return scripted(Reply(text=text, **fields))


def words(num: int) -> str:
    return "".join(f"word{number} " for number in range(num))


def test_every_wire_is_among_those_tested() -> None:
    embeddings = {"/v1/embeddings", "/ollama/api/embed", "/fastchat/worker_get_embeddings"}
    assert {row.path for row in ENDPOINTS if row.wire is not None} == {*WIRES, *FASTCHAT_WIRES} | embeddings


@pytest.mark.parametrize("path", FASTCHAT_WIRES)
async def test_a_flagged_prompt_is_refused_in_fastchats_words_too(path: str) -> None:
    engine = says("hello")
    async with gateway(engine, moderation=PATTERN, fastchat_networks=("127.0.0.0/8",)) as g:
        asked = {"model": "scripted", "prompt": ASKED}
        async with g.http.post(g.url + path, json=asked) as response:
            refused = json.loads((await response.text()).rstrip("\0"))
    assert refused["error_code"] > 0
    assert "moderation (secret)" in refused["text"]
    assert not any(exchange.is_asked for exchange in g.exchanges)


@pytest.mark.parametrize("path", WIRES)
async def test_a_flagged_prompt_is_refused_on_every_wire(path: str, caplog: Any) -> None:
    with caplog.at_level(logging.DEBUG):
        async with gateway(says("hello"), moderation=PATTERN) as g:
            status, refused, _ = await g.post(path, WIRES[path])
            async with g.http.get(g.url + "/metrics") as response:
                metrics = await response.text()
    assert status == 400, refused
    assert "moderation (secret)" in str(refused["error"])
    assert BAD not in str(refused) + caplog.text + metrics
    assert 'chaku_moderation_total{action="refuse",category="secret",where="input"} 1.0' in metrics
    assert "action=refuse categories=secret" in caplog.text


async def test_a_prompt_of_token_ids_can_t_go_round_the_policy() -> None:
    async with gateway(moderation=PATTERN) as g:
        status, refused, _ = await g.post("/v1/completions", {"model": "scripted", "prompt": [1, 2, 3]})
    assert (status, "token ids" in refused["error"]["message"]) == (400, True)


@pytest.mark.parametrize(("action", "shown"), [("warn", ASKED), ("hide", "[hidden by moderation]")])
async def test_a_flagged_prompt_passes_with_a_warning_or_is_hidden(action: str, shown: str) -> None:
    engine = scripted(Reply(text="You said: {prompt}"))
    async with gateway(engine, moderation={**PATTERN, "actions": {"secret": action}, "output": False}) as g:
        status, answer, headers = await g.post("/v1/chat/completions", chat(ASKED))
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == f"You said: {shown}"
    assert headers["x-chaku-moderation"] == f"input; action={action}; categories=secret"


@pytest.mark.parametrize(("action", "text"), [("hide", "First "), ("refuse", "")])
async def test_a_whole_answer_is_cut_or_emptied(action: str, text: str) -> None:
    async with gateway(says(f"First {BAD} last"), moderation={**PATTERN, "action": action}) as g:
        _, answer, headers = await g.post("/v1/chat/completions", chat())
        _, completion, _ = await g.post("/v1/completions", {"model": "scripted", "prompt": "x"})
        _, scored, _ = await g.post("/score", {"input_data": {"input_string": ["x"]}})
    choice = answer["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, "content_filter")
    assert (completion["choices"][0]["text"], completion["choices"][0]["finish_reason"]) == (text, "content_filter")
    assert scored == [{"0": f"x{text}"}]
    assert "output" in headers["x-chaku-moderation"]


@pytest.mark.parametrize(("reasoning", "text"), [("I shall say it. ", "First "), (f"Not {BAD}. ", "")])
async def test_a_whole_answer_with_thoughts_is_cut_at_the_same_word(reasoning: str, text: str) -> None:
    engine = says(f"First {BAD} last", reasoning=reasoning)
    async with gateway(engine, moderation={**PATTERN, "action": "hide"}) as g:
        _, answer, _ = await g.post("/v1/chat/completions", chat())
    assert answer["choices"][0]["message"]["content"] == text
    assert BAD not in str(answer)


async def test_a_stream_ends_with_content_filter_and_the_engine_is_stopped() -> None:
    engine = says(words(60) + f"now {BAD} follows " + words(300), token_delay_s=0.001)
    async with gateway(engine, moderation=PATTERN) as g:
        async with openai.AsyncOpenAI(base_url=g.url + "/v1", api_key="none") as client:
            said, reasons = "", []
            async for chunk in await client.chat.completions.create(**chat(), stream=True):
                said += chunk.choices[0].delta.content or ""
                reasons += [chunk.choices[0].finish_reason] if chunk.choices[0].finish_reason else []
        assert reasons == ["content_filter"]
        assert said.startswith("word0 ") and BAD not in said
        assert g.exchanges[0].status == 200
        assert 0 < g.exchanges[0].completion_tokens < 200


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses", "/v1/completions", "/ollama/api/chat"])
async def test_other_streams_end_in_their_own_words(path: str) -> None:
    words_of = {"/v1/messages": '"refusal"', "/v1/responses": '"content_filter"', "/v1/completions": '"content_filter"'}
    words_of["/ollama/api/chat"] = '"done_reason":"content_filter"'
    body = {**WIRES[path], "stream": True}
    body = orjson.loads(orjson.dumps(body).replace(BAD.encode(), b"usual"))
    async with (
        gateway(says(words(60) + BAD + " " + words(60)), moderation=PATTERN) as g,
        g.http.post(g.url + path, json=body) as response,
    ):
        text = await response.text()
    assert words_of[path] in text
    assert BAD not in text


async def test_an_unflagged_stream_loses_and_doubles_nothing() -> None:
    async with gateway(says(words(100)), moderation={**PATTERN, "window": 50}) as g:
        events = await g.events("/v1/chat/completions", chat(stream=True))
    said = "".join(
        choice["delta"].get("content") or "" for event in events[:-1] for choice in orjson.loads(event)["choices"]
    )
    assert said == words(100).rstrip() or said == words(100)


async def test_what_was_said_before_an_engine_died_still_comes() -> None:
    engine = says(words(40), fault="break_off", fault_after_tokens=20)
    async with gateway(engine, moderation=PATTERN) as g:
        events = await g.events("/v1/chat/completions", chat(stream=True))
    assert "word19" in "".join(events)
    assert "error" in orjson.loads(events[-1])


class Sent:
    """The client's side of one stream."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.reasons: list[tuple[int, str]] = []

    async def __call__(self, message: Any) -> None:
        for line in message.get("body", b"").split(b"\n\n"):
            if line.startswith(b"data: {"):
                for choice in orjson.loads(line[6:])["choices"]:
                    index = choice["index"]
                    self.texts[index] = self.texts.get(index, "") + (choice["delta"].get("content") or "")
                    if choice["finish_reason"]:
                        self.reasons.append((index, choice["finish_reason"]))


def part(index: int, content: str = "", finish_reason: str | None = None, **more: Any) -> dict[str, Any]:
    """One chunk of the choice at `index`; `more` goes into its delta."""
    delta = ({"content": content} if content else {}) | more
    choice = {"index": index, "delta": delta, "finish_reason": finish_reason, "logprobs": None}
    return {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}


async def was_filtered(chunks: list[Any], sent: Sent, num_answers: int) -> bool:
    """Judge these chunks and the end of their stream, with <x…> and a word forbidden."""
    policy = ModerationPolicy(patterns={"x": f"<x+>|{BAD}"}, window=44)
    relay = Relay(Exchange("r", "chat"), sent, [], PassedThrough({}, True, (), False))
    answer = JudgedAnswer(Moderator(policy), relay, "chat", num_answers)
    try:
        for chunk in [*chunks, None]:
            await answer.block(Block(event(chunk)) if chunk else Block(DONE, is_last=True), ())
    except Filtered:
        return True
    return False


async def test_a_choice_that_has_ended_is_not_ended_again_by_the_judgement_of_another() -> None:
    sent = Sent()
    flagged = [part(1, "ab " * 10) for _ in range(20)] + [part(1, "<xx>"), part(1, "ab " * 40)]
    assert await was_filtered([part(0, "short"), part(0, "", "stop"), *flagged], sent, 2)
    assert sent.reasons == [(0, "stop"), (1, "content_filter")]
    assert sent.texts[0] == "short"


async def test_a_choice_whose_end_was_still_held_ends_as_filtered() -> None:
    sent = Sent()
    assert await was_filtered([part(0, "short"), part(0, "", "stop"), part(1, "<xx>" + "ab " * 40)], sent, 2)
    assert sent.reasons == [(0, "content_filter"), (1, "content_filter")]


async def test_a_choice_that_has_not_begun_ends_with_the_others() -> None:
    sent = Sent()
    assert await was_filtered([part(0, "<xx>" + "ab " * 40)], sent, 2)
    assert sent.reasons == [(0, "content_filter"), (1, "content_filter")]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    before=st.text("ab ", max_size=150),
    passage=st.text("x", min_size=1, max_size=20),
    after=st.text("ab ", max_size=150),
    data=st.data(),
    num_answers=st.integers(1, 2),
)
def test_a_passage_of_half_a_window_never_gets_out_however_a_stream_is_cut(
    before: str, passage: str, after: str, data: st.DataObject, num_answers: int
) -> None:
    text = f"{before}<{passage}>{after}"
    cuts = sorted(data.draw(st.sets(st.integers(1, len(text) - 1), max_size=30)) if len(text) > 1 else set())
    pieces = [text[i:j] for i, j in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    sent = Sent()
    indices = range(num_answers)
    chunks = [part(index, piece) for piece in pieces for index in indices]
    assert asyncio.run(was_filtered(chunks + [part(index, "", "stop") for index in indices], sent, num_answers))
    assert sent.reasons == [(index, "content_filter") for index in indices]
    for said in sent.texts.values():
        assert (before + "<").startswith(said) or before.startswith(said)
        assert "x" not in said


@pytest.mark.parametrize(
    "thought",
    [
        lambda text: {"reasoning": text, "reasoning_content": text},
        lambda text: {"reasoning": text, "reasoning_details": [{"type": "reasoning.text", "text": text}]},
    ],
)
async def test_a_passage_in_thoughts_under_two_names_is_found_however_it_is_cut(thought: Any) -> None:
    sent = Sent()
    assert await was_filtered([part(0, **thought(letter)) for letter in f"a {BAD} thought " + "ab " * 40], sent, 1)
    assert sent.reasons == [(0, "content_filter")]


@pytest.mark.parametrize("cut", range(1, len(BAD)))
@pytest.mark.parametrize("names", [("reasoning_content",), ("reasoning", "reasoning_content")])
async def test_a_passage_that_begins_in_the_thoughts_and_ends_in_the_text_is_found(
    cut: int, names: tuple[str, ...]
) -> None:
    sent = Sent()
    thoughts = [part(0, **dict.fromkeys(names, letter)) for letter in "ab " * 40 + BAD[:cut]]
    assert await was_filtered([*thoughts, *(part(0, letter) for letter in BAD[cut:] + "ab " * 40)], sent, 1)
    assert (sent.reasons, sent.texts[0]) == ([(0, "content_filter")], "")


async def test_a_passage_in_the_text_is_found_while_thoughts_come_between_its_letters() -> None:
    sent = Sent()
    assert await was_filtered([part(0, letter, reasoning="ab") for letter in BAD + "ab " * 40], sent, 1)
    assert sent.reasons == [(0, "content_filter")]


def around(text: str) -> st.SearchStrategy[Any]:
    """JSON values of any shape with this text somewhere in them."""
    anything = st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False) | st.just("ab "),
        lambda inner: st.lists(inner, max_size=2) | st.dictionaries(FIELDS, inner, max_size=2),
        max_leaves=4,
    )
    one_more = lambda inner: st.one_of(  # noqa: E731
        st.tuples(anything, inner, anything).map(list),
        st.tuples(st.dictionaries(FIELDS, anything), FIELDS, inner).map(lambda drawn: {**drawn[0], drawn[1]: drawn[2]}),
    )
    return st.recursive(st.just(text), one_more, max_leaves=3)


FIELDS = st.sampled_from(["text", "summary", "content", "parts", "x"])
PLACES = ("reasoning_content", "reasoning", "reasoning_details", "content", "refusal", "tool_calls", "unheard_of")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(odd=around(f"a {BAD} word"), place=st.sampled_from(PLACES), is_stream=st.booleans())
def test_what_is_forbidden_is_found_in_json_of_any_shape(odd: Any, place: str, is_stream: bool) -> None:
    if is_stream:
        assert asyncio.run(was_filtered([part(0, **{place: odd})], Sent(), 1))
        return
    policy = ModerationPolicy(patterns={"x": BAD}, action="hide")
    answer = {"choices": [{"index": 0, "message": {"content": "fine"} | {place: odd}, "finish_reason": "stop"}]}
    passed: list[bytes] = []

    async def send(message: Any) -> None:
        passed.append(message.get("body", b""))

    relay = Relay(Exchange("r", "chat"), send, [], PassedThrough({}, False, (), False))
    asyncio.run(JudgedAnswer(Moderator(policy), relay, "chat", 1).whole(answer, ()))
    assert b"content_filter" in b"".join(passed) and BAD.encode() not in b"".join(passed)


@pytest.mark.parametrize(
    "choices",
    [BAD, {"message": {"content": BAD}}, [BAD], [{"message": BAD}], [{"message": [BAD]}], [{"index": [], "text": BAD}]],
)
async def test_an_answer_whose_texts_can_t_be_told_does_not_pass(choices: Any) -> None:
    relay = Relay(Exchange("r", "chat"), Sent(), [], PassedThrough({}, True, (), False))
    answer = JudgedAnswer(Moderator(ModerationPolicy(**PATTERN)), relay, "chat", 1)
    with pytest.raises(EngineError, match="shape"):
        await answer.whole({"choices": choices}, ())
    with pytest.raises(EngineError, match="shape"):
        await answer.block(Block(event({"choices": choices})), ())


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
