"""An upstream behind the gateway: another chaku, and raw servers that fail in every way a network has."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest

from chaku.engines import upstream
from chaku.engines.base import Call, State
from chaku.engines.openai_speaker import Dialect, OpenAiSpeaker
from chaku.engines.scripted import Reply
from chaku.engines.upstream import UpstreamEngine
from chaku.errors import ConfigError
from chaku.http_out import Transport
from chaku.settings import ModelConfig
from gateways import CHAT, Keys, Running, chat, gateway, scripted
from processes import PATIENCE_S

MODELS = b'{"object":"list","data":[{"id":"theirs","object":"model","created":1,"owned_by":"x"}]}'
WHOLE = (
    b'{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"theirs","choices":[{"index":0,"message":'
    b'{"role":"assistant","content":"hi"},"finish_reason":"stop","logprobs":null}],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}'
)
WORD = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"theirs",'
    b'"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
)
END = WORD.replace(b'{"content":"hi"},"finish_reason":null', b'{},"finish_reason":"stop"')
USAGE = (
    b'data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"theirs","choices":[],'
    b'"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}\n\n'
)
DONE = b"data: [DONE]\n\n"


def reply(status: int, body: bytes, *headers: str, kind: str = "application/json", length: int | None = None) -> bytes:
    head = [f"HTTP/1.1 {status} X", f"Content-Type: {kind}", f"Content-Length: {length or len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def stream(body: bytes, length: int | None = None) -> bytes:
    return reply(200, body, kind="text/event-stream", length=length)


class RawServer:
    """Answers each POST with the next of `answers` (the last again and again), closing after it; b"" says nothing."""

    def __init__(self, *answers: bytes, models: bytes = reply(200, MODELS)) -> None:
        self.answers = list(answers)
        self.models = models
        self.posts: list[dict[str, object]] = []
        self.heads: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            self.heads.append(head)
            answer = self.models
            if head.startswith("POST"):
                length = next(line for line in head.split("\r\n") if line.lower().startswith("content-length"))
                self.posts.append(orjson.loads(await reader.readexactly(int(length.partition(":")[2]))))
                answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            writer.write(answer)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def raw(
    server: RawServer, *, moderation: Any = None, **config: Any
) -> AsyncIterator[tuple[Running, UpstreamEngine]]:
    """A gateway in front of a raw server; yields the gateway and the engine."""
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    engine = UpstreamEngine("scripted", ModelConfig(source=url, **{"upstream_model": "theirs", **config}))
    try:
        async with gateway(engine, moderation=moderation) as g:
            yield g, engine
    finally:
        listener.close()
        await listener.wait_closed()


async def test_requests_go_on_in_openais_words_under_the_name_that_is_known_there() -> None:
    server = RawServer(reply(200, WHOLE))
    labels = {"user": "me", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "p", "store": False}
    labels |= {"service_tier": "auto", "modalities": ["text"], "verbosity": "medium"}
    async with raw(server, extensions=("top_k",)) as (g, _):
        status, answer, _ = await g.post(CHAT, chat("hey", seed=5, top_k=3, n=1, **labels))
        assert (status, answer["model"]) == (200, "scripted")
        refused, body, _ = await g.post(CHAT, chat("hey", min_p=0.5))
    sent = {"model": "theirs", "messages": chat("hey")["messages"], "seed": 5, "top_k": 3, **labels}
    assert server.posts == [sent]
    assert (refused, body["error"]["param"]) == (400, "min_p")


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


async def test_embeddings_that_are_switched_off_are_not_asked_for() -> None:
    server = RawServer(b"")
    async with raw(server, embeddings=False) as (g, _):
        status, body, _ = await g.post("/v1/embeddings", {"model": "scripted", "input": "x"})
    assert (status, body["error"]["param"], server.posts) == (400, "model", [])


async def test_slots_bound_an_upstreams_embeddings_too() -> None:
    async with raw(RawServer(b""), slots=3) as (g, _):
        served = g.serving.table.find("scripted")
        assert (served.admission.slots, served.embedding_admission.slots) == (3, 3)


async def test_a_request_that_was_sent_is_not_sent_again_as_it_may_cost() -> None:
    server = RawServer(b"", reply(200, WHOLE))
    async with raw(server) as (g, engine):
        status, answer, _ = await g.post(CHAT, chat())
        assert engine.status().state is State.READY
        assert (status, answer["error"]["code"]) == (502, "engine_error")
        assert len(server.posts) == 1
        assert (await g.post(CHAT, chat()))[0] == 200


async def test_a_request_on_a_used_connection_that_was_just_closed_is_sent_once_more() -> None:
    connections = posts = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections, posts
        connections += 1
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            for answer in (reply(200, MODELS) if connections == 1 else reply(200, WHOLE), b""):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                if head.startswith("POST"):
                    posts += 1
                    await reader.readexactly(int(head.lower().partition("content-length: ")[2].partition("\r")[0]))
                writer.write(answer)
                await writer.drain()
        writer.close()

    listener = await asyncio.start_server(serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    async with listener, gateway(UpstreamEngine("scripted", ModelConfig(source=url, upstream_model="theirs"))) as g:
        assert (await g.post(CHAT, chat()))[0] == 200
    assert (connections, posts) == (2, 2)


async def test_only_an_upstream_that_takes_no_connections_is_unavailable_to_all() -> None:
    server = RawServer(reply(503, b'{"error":{"message":"this model is busy"}}'))
    async with raw(server) as (g, engine):
        assert (await g.post(CHAT, chat()))[0] == 503
        assert engine.status().state is State.READY
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1"
    engine = UpstreamEngine("scripted", ModelConfig(source=url, upstream_model="theirs"))
    async with gateway(engine) as g:
        listener.close()
        await listener.wait_closed()
        status, answer, headers = await g.post(CHAT, chat())
        assert engine.status().state is State.RESTARTING
    assert (status, answer["error"]["code"]) == (503, "engine_unavailable")
    assert int(headers["retry-after"]) >= 1


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


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    server = RawServer(reply(status, b"", "Location: http://127.0.0.1:9/steal"))
    async with raw(server) as (g, _):
        answered, answer, _ = await g.post(CHAT, chat())
    assert answered == 502
    assert "redirects" in answer["error"]["message"]
    assert len(server.posts) == 1


@pytest.mark.parametrize("status", [401, 403])
async def test_a_key_of_ours_that_is_refused_is_not_the_callers_fault(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THEIR_KEY", "sk-secret-1")
    refusal = b'{"error":{"message":"Incorrect API key provided","type":"x","code":"invalid_api_key"}}'
    server = RawServer(reply(status, refusal))
    async with raw(server, api_key_env="THEIR_KEY") as (g, _):
        answered, answer, headers = await g.post(CHAT, chat())
    assert (answered, answer["error"]["code"]) == (502, "engine_error")
    assert "www-authenticate" not in headers
    assert "sk-secret-1" not in str(answer)
    assert any("authorization: bearer sk-secret-1" in head.lower() for head in server.heads)


async def test_a_key_of_ours_in_an_error_amid_a_stream_is_cut_out(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("THEIR_KEY", "sk-secret-1")
    error = b'data: {"error":{"message":"sk-secret-1 asked hello","type":"x","code":null}}\n\n'
    async with raw(RawServer(stream(WORD + error)), api_key_env="THEIR_KEY") as (g, _):
        events = await g.events(CHAT, chat(stream=True))
    assert any("[key] asked hello" in event for event in events)
    assert "sk-secret-1" not in " ".join(events) + caplog.text and "asked hello" not in caplog.text


async def test_the_callers_own_key_never_goes_to_an_upstream() -> None:
    server = RawServer(reply(200, WHOLE))
    async with raw(server) as (g, _):
        await g.post(CHAT, chat(), headers={"Authorization": "Bearer ck-mine", "Cookie": "a=b"})
    assert not any("ck-mine" in head or "cookie" in head.lower() for head in server.heads)


async def test_a_refusal_of_the_request_is_the_callers_with_its_param() -> None:
    body = b'{"error":{"message":"too hot","type":"invalid_request_error","param":"temperature","code":"x"}}'
    async with raw(RawServer(reply(400, body))) as (g, _):
        status, answer, _ = await g.post(CHAT, chat(temperature=1.5))
    assert (status, answer["error"]["param"], answer["error"]["message"]) == (400, "temperature", "too hot")


async def test_an_upstreams_own_codes_reach_the_client_and_no_metric() -> None:
    refusals = [reply(400, b'{"error":{"message":"no","code":"made_up_%d"}}' % number) for number in range(5)]
    async with raw(RawServer(*refusals)) as (g, _):
        codes = [(await g.post(CHAT, chat()))[1]["error"]["code"] for _ in range(5)]
        async with g.http.get(g.url + "/metrics") as response:
            text = await response.text()
    assert codes == [f"made_up_{number}" for number in range(5)]
    assert 'chaku_errors_total{code="invalid_request",model="scripted"} 5.0' in text
    assert "made_up" not in text


async def test_a_busy_upstreams_time_to_come_back_is_passed_on() -> None:
    async with raw(RawServer(reply(429, b'{"error":{"message":"slow down"}}', "Retry-After: 7"))) as (g, _):
        status, _, headers = await g.post(CHAT, chat())
    assert (status, headers["retry-after"]) == (429, "7")


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


async def test_a_server_with_words_of_its_own_is_asked_in_its_words() -> None:
    server = RawServer(reply(200, WHOLE))
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    transport = Transport(f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}/v1", who="peer")
    dialect = Dialect(renamed={"repetition_penalty": "repeat_penalty"}, added={"cache_prompt": True})
    speaker = OpenAiSpeaker("ours", transport, model="theirs", dialect=dialect)
    async with listener:
        async with speaker.ask(Call("chat", {"messages": [], "repetition_penalty": 1.1}, False, "1")) as answer:
            assert (await answer.whole())["model"] == "ours"
        assert await speaker.models() == ["theirs"]
        await transport.close()
    assert server.posts == [{"messages": [], "repeat_penalty": 1.1, "cache_prompt": True, "model": "theirs"}]


@pytest.mark.parametrize("status", [404, 405])
async def test_a_server_without_a_list_of_models_is_asked_by_the_given_name(status: int) -> None:
    server = RawServer(reply(200, WHOLE), models=reply(status, b"not here", kind="text/plain"))
    async with raw(server, upstream_model=None) as (g, engine):
        assert engine.status().state is State.READY
        assert (await g.post(CHAT, chat()))[0] == 200
    assert server.posts[0]["model"] == "scripted"


async def test_a_lists_only_model_is_taken_without_asking() -> None:
    server = RawServer(reply(200, WHOLE))
    async with raw(server, upstream_model=None) as (g, _):
        await g.post(CHAT, chat())
    assert server.posts[0]["model"] == "theirs"


async def test_an_upstream_that_is_not_there_is_said_once_and_not_with_every_look(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upstream, "PROBE_EVERY_S", 0.02)
    caplog.set_level("INFO")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        engine = UpstreamEngine("away", ModelConfig(source=f"http://127.0.0.1:{closed.getsockname()[1]}/v1"))
        await engine.start()
        await asyncio.sleep(0.3)  # several more looks
        await engine.stop()
    said = [record.getMessage() for record in caplog.records if "chaku" in record.name]
    assert len(said) == 1 and said[0].startswith("upstream unavailable model=away"), said


@pytest.mark.parametrize("models", [b"[]", b'{"data":[{}]}', b'{"data":null}', b'"x"'])
async def test_a_list_of_models_that_is_none_leaves_the_upstream_unavailable(models: bytes) -> None:
    async with raw(RawServer(b"", models=reply(200, models))) as (g, engine):
        assert engine.status().state is State.RESTARTING
        assert (await g.post(CHAT, chat()))[0] == 503


async def test_an_unknown_model_is_a_mistake_that_names_those_there_are() -> None:
    server = RawServer(b"")
    with pytest.raises(ConfigError, match="theirs"):
        async with raw(server, upstream_model="other"):
            pass


async def test_an_upstream_that_was_away_comes_back_by_itself_and_both_are_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upstream, "PROBE_EVERY_S", 0.05)
    caplog.set_level("INFO")
    server = RawServer(reply(200, WHOLE), models=reply(500, b"booting"))
    async with raw(server) as (g, engine):
        assert (await g.post(CHAT, chat()))[0] == 503
        await asyncio.sleep(0.5)  # several more looks
        assert (caplog.text.count("upstream unavailable"), caplog.text.count("ready")) == (1, 0)
        server.models = reply(200, MODELS)
        async with asyncio.timeout(PATIENCE_S):
            while (await g.post(CHAT, chat()))[0] != 200:
                await asyncio.sleep(0.02)
        assert engine.status().state is State.READY
    assert (caplog.text.count("upstream unavailable"), caplog.text.count("upstream ready")) == (1, 1)


async def test_a_probe_that_fails_in_a_way_nobody_expected_is_logged_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(upstream, "PROBE_EVERY_S", 0.02)
    monkeypatch.setattr("chaku.tasks.PAUSE_S", 0.02)
    server = RawServer(reply(200, WHOLE), models=reply(500, b"booting"))
    async with raw(server) as (_, engine):
        look = engine._look
        outcomes: list[Exception | None] = [KeyError("planted")]

        async def planted() -> None:
            if outcomes:
                raise outcomes.pop()
            await look()

        monkeypatch.setattr(engine, "_look", planted)
        server.models = reply(200, MODELS)
        async with asyncio.timeout(PATIENCE_S):
            while engine.status().state is not State.READY:
                await asyncio.sleep(0.02)
    assert "planted" in caplog.text


async def test_a_chaku_behind_a_chaku_answers_streams_and_dies_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INNER_KEY", "ck-inner")
    dies = Reply(match="die", text="a b c d e", fault="break_off")
    async with gateway(scripted(dies, Reply(text="echo {prompt}"), name="in"), keys=Keys({"ck-inner": "k"})) as inner:
        config = ModelConfig(source=f"{inner.url}/v1", api_key_env="INNER_KEY", upstream_model="in")
        async with gateway(UpstreamEngine("scripted", config)) as outer:
            _, answer, _ = await outer.post(CHAT, chat("x"))
            assert (answer["model"], answer["choices"][0]["message"]["content"]) == ("scripted", "echo x")
            events = await outer.events(CHAT, chat("x", stream=True))
            assert {orjson.loads(event)["model"] for event in events[:-1]} == {"scripted"}
            died = await outer.events(CHAT, chat("die", stream=True))
            assert "died in mid-answer" in orjson.loads(died[-1])["error"]["message"]
            status, body, _ = await outer.post(CHAT, chat("x", seed=1))
            assert (status, body["error"]["param"]) == (400, "seed")
    assert [exchange.key_id for exchange in inner.exchanges] == ["k"] * 4
