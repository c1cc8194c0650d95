"""Moderation on every wire: prompts, whole answers and streams; nothing of a text in the log."""

from __future__ import annotations

import json
import logging
from typing import Any

import openai
import orjson
import pytest

from chaku.engines.scripted import Reply
from chaku.serve.endpoints import ENDPOINTS
from gateways import chat, gateway, says, scripted

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
