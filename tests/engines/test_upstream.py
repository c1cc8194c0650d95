"""An upstream behind the gateway: whose words, keys and mistakes go where; another chaku too."""

from __future__ import annotations

import asyncio
import contextlib

import orjson
import pytest

from chaku.engines.base import Call, State
from chaku.engines.openai_speaker import Dialect, OpenAiSpeaker
from chaku.engines.scripted import Reply
from chaku.engines.upstream import UpstreamEngine
from chaku.http_out import Transport
from chaku.settings import ModelConfig
from engines.raw_upstream import MODELS, WHOLE, WORD, RawServer, raw, reply, stream
from gateways import CHAT, Keys, chat, gateway, scripted


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
