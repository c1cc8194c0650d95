"""Streams and answers of an upstream: every spelling, every way to die, words and counts wherever it puts them."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest

from engines.raw_upstream import DONE, END, MODELS, USAGE, WHOLE, WORD, RawServer, raw, reply, stream
from gateways import CHAT, chat


@pytest.mark.parametrize(
    "said",
    [
        '"reasoning":"a forbidden thought"',
        '"reasoning_content":"a forbidden thought"',
        '"reasoning_details":[{"type":"reasoning.text","text":"a forbidden thought","signature":null,"index":0}]',
        '"reasoning_details":[{"type":"reasoning.encrypted","data":"x"},'
        '{"type":"reasoning.summary","summary":"a forbidden thought"}]',
        '"refusal":"not the forbidden"',
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_an_upstreams_words_are_moderated_wherever_it_puts_them(said: str, is_stream: bool) -> None:
    thoughts = said.removeprefix('"').encode()
    answer = reply(200, WHOLE.replace(b'"content"', b'"' + thoughts + b',"content"'))
    if is_stream:
        answer = stream(WORD.replace(b'content":"hi"', thoughts) + WORD + END + USAGE + DONE)
    async with (
        raw(RawServer(answer), moderation={"patterns": {"secret": "forbidden"}, "action": "hide"}) as (g, _),
        g.http.post(g.url + CHAT, json=chat("hey", stream=is_stream)) as response,
    ):
        text = await response.text()
    assert "content_filter" in text and "forbidden" not in text


@pytest.mark.parametrize("is_judged", [False, True])
@pytest.mark.parametrize("path", [CHAT, "/v1/messages"])
async def test_words_of_an_event_with_a_name_are_read_and_judged(path: str, is_judged: bool) -> None:
    sent = stream(b"event: chunk\n" + WORD.replace(b"hi", b"a forbidden word") + END + USAGE + DONE)
    policy = {"patterns": {"secret": "forbidden"}} if is_judged else None
    async with (
        raw(RawServer(sent), moderation=policy) as (g, _),
        g.http.post(g.url + path, json=chat("hey", stream=True, max_tokens=9)) as response,
    ):
        text = await response.text()
    assert ("forbidden" in text) != is_judged


@pytest.mark.parametrize(
    "answer",
    [
        stream(WORD + WORD),
        stream(WORD + WORD, length=100_000),
        stream(WORD + WORD + END),
        stream(WORD + WORD + b'data: {"choices":[{"ind', length=100_000),
        stream(WORD + WORD + b'data: {"error":{"message":"it burns","code":500}}\n\n'),
        stream(WORD + WORD + b'data: {"error": {"message": "it burns", "code": 500}}\n\n' + DONE),
    ],
    ids=["no_done", "cut", "no_done_after_finish", "half_an_event", "error_event", "error_event_and_done"],
)
async def test_a_stream_that_dies_ends_with_an_error_event_and_is_not_repeated(answer: bytes) -> None:
    server = RawServer(answer)
    async with raw(server) as (g, _):
        events = await g.events(CHAT, chat(stream=True))
    assert [event for event in events if '"hi"' in event]
    assert orjson.loads(events[-1])["error"]["code"] == "engine_error"
    assert "[DONE]" not in events
    assert len(server.posts) == 1


@pytest.mark.parametrize(
    "sent",
    [
        WORD + END + USAGE + DONE,
        (WORD + END + USAGE + DONE).replace(b"\n\n", b"\r\n\r\n"),
        (WORD + END + USAGE + DONE).replace(b"data: ", b"data:"),
        b": a comment\n\n" + WORD + b": another\n\n" + END + USAGE + DONE,
        b"".join(
            b"data: " + orjson.dumps(orjson.loads(part[6:])).replace(b":", b": ").replace(b",", b", ") + b"\n\n"
            for part in (WORD, END, USAGE)
        )
        + DONE,
    ],
    ids=["plain", "crlf", "no_space", "comments", "pythons_json"],
)
async def test_streams_in_every_spelling_are_renamed_and_counted(sent: bytes) -> None:
    async with raw(RawServer(stream(sent))) as (g, _):
        events = await g.events(CHAT, chat(stream=True))
    chunks = [orjson.loads(event) for event in events[:-1] if not event.startswith(":")]
    assert events[-1] == "[DONE]"
    assert [chunk["model"] for chunk in chunks] == ["scripted", "scripted"]
    assert chunks[0]["choices"][0]["delta"]["content"] == "hi"
    assert (g.exchanges[0].completion_tokens, g.exchanges[0].status) == (1, 200)


ODD_USAGE: list[Any] = [
    "many", [1], None, {}, {"prompt_tokens": "many", "completion_tokens": 2}, {"prompt_tokens": -1},
    {"prompt_tokens": 1e300}, {"prompt_tokens": 3, "completion_tokens": True}, {"prompt_tokens": {"a": 1}},
]  # fmt: skip


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/v1/responses", "/ollama/api/chat"])
async def test_token_counts_that_are_none_cost_no_answer_and_are_not_counted(path: str) -> None:
    asked = {"model": "scripted", "input": "hi"} if path == "/v1/responses" else chat()
    asked |= {"max_tokens": 5} if path == "/v1/messages" else {}
    answers = []
    for usage in ODD_USAGE:
        last = b"data: " + orjson.dumps({**orjson.loads(USAGE[6:]), "usage": usage}) + b"\n\n"
        answers += [reply(200, orjson.dumps({**orjson.loads(WHOLE), "usage": usage})), stream(WORD + END + last + DONE)]
    async with raw(RawServer(*answers)) as (g, _):
        for number in range(len(answers)):
            async with g.http.post(g.url + path, json={**asked, "stream": bool(number % 2)}) as response:
                assert (response.status, "hi" in await response.text()) == (200, True)
    counted = {(each.status, each.prompt_tokens, each.has_usage) for each in g.exchanges}
    assert (len(g.exchanges), counted) == (len(answers), {(200, 0, False)})


TRANSLATED: dict[str, dict[str, Any]] = {
    "/v1/messages": {**chat(), "max_tokens": 5},
    "/v1/responses": {"model": "scripted", "input": "hi"},
    "/ollama/api/chat": chat(),
    "/ollama/api/generate": {"model": "scripted", "prompt": "hi"},
    "/fastchat/worker_generate": {"model": "scripted", "prompt": "hi"},
}
ODD_MESSAGES: list[Any] = [
    {"content": 7}, {"content": {"text": "x"}}, {"content": True}, {"refusal": 7}, {"content": None, "tool_calls": [7]},
    {"tool_calls": [{"index": 0, "id": "c", "function": {"name": "f", "arguments": {"a": 1}}}]}, "hi", [1],
]  # fmt: skip


def answers_of(message: Any) -> list[bytes]:
    """A whole answer and a stream of this message."""
    whole, chunk = orjson.loads(WHOLE), orjson.loads(WORD[6:])
    whole["choices"][0]["message"] = chunk["choices"][0]["delta"] = message
    return [reply(200, orjson.dumps(whole)), stream(b"data: " + orjson.dumps(chunk) + b"\n\n" + END + USAGE + DONE)]


async def translated(path: str, *answers: bytes) -> list[tuple[int, str]]:
    """Status and text of each answer, whole and streamed in turns, in the words of another API."""
    got = []
    async with raw(RawServer(*answers)) as (g, _):
        for number in range(len(answers)):
            url, asked = g.url + path, {**TRANSLATED[path], "stream": bool(number % 2)}
            if "fastchat" in path:
                url += "_stream" * asked.pop("stream")
            async with g.http.post(url, json=asked) as response:
                got.append((response.status, await response.text()))
    return got


@pytest.mark.parametrize("path", TRANSLATED)
async def test_a_list_of_parts_is_their_text_on_every_wire(path: str) -> None:
    parts = [{"type": "text", "text": "so "}, {"type": "text", "text": "it is"}]
    for status, text in await translated(path, *answers_of({"role": "assistant", "content": parts})):
        assert status == 200 and "so it is" in text


@pytest.mark.parametrize("path", TRANSLATED)
async def test_an_answer_of_no_shape_is_a_502_on_every_wire(path: str, caplog: pytest.LogCaptureFixture) -> None:
    messages = (
        ODD_MESSAGES if "fastchat" not in path else [*ODD_MESSAGES[:3], *ODD_MESSAGES[-2:]]
    )  # it reads texts only
    answers = [answer for message in messages for answer in answers_of(message)]
    nothing = [reply(200, orjson.dumps({**orjson.loads(WHOLE), "choices": choices})) for choices in ([], [7])]
    got = await translated(path, *answers, nothing[0], stream(b'data: {"choices":[{]}\n\n' + DONE), nothing[1])
    assert [status for status, _ in got] == [502] * len(got), got
    assert "Traceback" not in caplog.text
    assert re.search(r"answer not translated .* why=\w+ at=[\w.]+:\d+$", caplog.text, re.M)


@pytest.mark.parametrize(("text", "status"), [("hi", 200), ([{"type": "text", "text": "hi"}], 200), (7, 502)])
async def test_a_score_is_made_of_texts(text: Any, status: int) -> None:
    answer = orjson.loads(WHOLE)
    answer["choices"] = [{"index": 0, "text": text, "finish_reason": "stop"}]
    async with raw(RawServer(reply(200, orjson.dumps(answer)))) as (g, _):
        got, scored, _ = await g.post("/score", {"input_data": {"input_string": ["say "]}})
    assert (got, got == 502 or scored) == (status, status == 502 or [{"0": "say hi"}])


@pytest.mark.parametrize(
    "answer",
    [
        reply(200, b"<html>"),
        reply(200, b"[]"),
        reply(200, b"{}"),
        reply(200, b'{"choices":7}'),
        reply(500, b"oops"),
        b"SMTP ready\r\n",
        reply(200, b"{", length=50),
    ],
    ids=["html", "list", "empty", "no_choices", "500", "no_http", "cut"],
)
async def test_nonsense_is_a_502(answer: bytes) -> None:
    async with raw(RawServer(answer)) as (g, _):
        status, body, _ = await g.post(CHAT, chat())
    assert (status, body["error"]["type"]) == (502, "server_error")


BROKEN = (
    b'data: {"choices":[{]}',
    b'data: {"error"',
    b'error: {"error": nonsense',
    b'data: {"usage": {]}',
    b'data: {"usage": {}',
)


@pytest.mark.parametrize("event", BROKEN)
@pytest.mark.parametrize("renames", [True, False])
@pytest.mark.parametrize("first", [b"", WORD])
async def test_an_event_that_is_no_json_is_a_failure_of_the_upstream_which_is_named(
    first: bytes, event: bytes, renames: bool
) -> None:
    if not renames and event == BROKEN[0]:
        return  # passed on unread
    models = MODELS.replace(b"theirs", b"scripted")
    config = {} if renames else {"upstream_model": "scripted"}
    server = RawServer(stream(first + event + b"\n\n" + DONE), models=reply(200, MODELS if renames else models))
    async with raw(server, **config) as (g, engine):
        async with g.http.post(g.url + CHAT, json=chat(stream=True)) as response:
            text = await response.text()
            assert (response.status, first) in ((502, b""), (502, WORD), (200, WORD))
        last_event = text.strip().rpartition("\n\n")[2]
        error = orjson.loads(last_event.removeprefix("data: "))["error"]
    assert error["code"] == "engine_error"
    assert engine.name in error["message"] and "is not a JSON object" in error["message"]
