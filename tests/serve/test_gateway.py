"""The gateway over a real socket, with the scripted engine behind it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from canned_engine import CannedEngine
from chaku.cli.gateway import recorder
from chaku.engines.base import Answer, Call
from chaku.engines.scripted import Reply, Script, ScriptedEngine
from chaku.errors import ModelError
from chaku.serve.gateway import HUNG_UP, num_answers
from gateways import CHAT, chat, gateway, scripted
from processes import PATIENCE_S


async def test_an_answer_comes_whole_and_is_accounted_for() -> None:
    async with gateway() as g:
        status, answer, headers = await g.post(CHAT, chat("good morning"))
    assert status == 200
    assert answer["choices"][0]["message"]["content"] == "You said: good morning"
    assert answer["usage"]["completion_tokens"] == 4
    assert headers["x-request-id"].startswith("req-")
    assert (g.exchanges[0].prompt_tokens, g.exchanges[0].completion_tokens, g.exchanges[0].status) == (2, 4, 200)


async def test_usage_is_booked_at_the_arrival_of_its_request() -> None:
    rows: list[Any] = []
    async with gateway(scripted(Reply(text="a b c d", token_delay_s=0.05))) as g:
        await g.post(CHAT, chat())
        ended = time.time()
    recorder(SimpleNamespace(put=rows.append))(g.exchanges[0])  # type: ignore[arg-type]
    assert rows[0].duration_s > 0.1
    assert ended - rows[0].time.timestamp() >= rows[0].duration_s - 0.01


async def test_a_given_request_id_is_kept_and_a_hostile_one_is_not() -> None:
    async with gateway() as g:
        _, _, headers = await g.post(CHAT, chat(), headers={"X-Request-Id": "mine-1"})
        assert headers["x-request-id"] == "mine-1"
        _, _, headers = await g.post(CHAT, chat(), headers={"X-Request-Id": "a b;c"})
        assert headers["x-request-id"].startswith("req-")


async def test_a_stream_ends_with_done_and_shows_usage_only_when_asked() -> None:
    async with gateway() as g:
        plain = await g.events(CHAT, chat("one two", stream=True))
        asked = await g.events(CHAT, chat("one two", stream=True, stream_options={"include_usage": True}))
    assert plain[-1] == asked[-1] == "[DONE]"
    assert not any('"usage":{' in event for event in plain)
    assert orjson.loads(asked[-2])["usage"]["completion_tokens"] == 4
    text = "".join(orjson.loads(e)["choices"][0]["delta"].get("content", "") for e in plain[:-1])
    assert text == "You said: one two"
    assert [e.completion_tokens for e in g.exchanges] == [4, 4]
    assert all(e.first_token_s is not None and e.first_token_s <= e.duration_s for e in g.exchanges)


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"temprature": 1}, "temprature", "unknown_parameter"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"temperature": "0.5"}, "temperature", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages.0.content", "missing_required_parameter"),
        ({"store": True}, "store", "unsupported_parameter"),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"seed": 7}, "seed", "unsupported_parameter"),
        ({"logprobs": True}, "logprobs", "unsupported_parameter"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "unsupported_parameter"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "invalid_request"),
        ({"top_logprobs": 2}, "top_logprobs", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_request"),
        ({"max_tokens": 5, "max_completion_tokens": 5}, "max_completion_tokens", "invalid_request"),
        ({"messages": [{"role": "tool", "content": "x", "tool_call_id": "1"}]}, "messages.0", "invalid_request"),
        (
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:image/png;"}}]}
                ]
            },
            "messages.0.content.0",
            "invalid_request",
        ),
    ],
)
async def test_what_cannot_be_honoured_is_refused_by_name(
    body: dict[str, object], param: str, code: str | None
) -> None:
    async with gateway() as g:
        status, answer, _ = await g.post(CHAT, {**chat(), **body})
    assert status == 400
    assert answer["error"]["param"] == param
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["code"] == code


async def test_asking_for_the_default_is_asking_for_nothing() -> None:
    defaults = {"n": 1, "logprobs": False, "presence_penalty": 0, "response_format": {"type": "text"}, "seed": None}
    async with gateway() as g:
        status, _, _ = await g.post(CHAT, chat(**defaults, user="me", metadata={"a": "b"}, tool_choice="none"))
    assert status == 200


async def test_bodies_that_are_not_json_objects_are_refused() -> None:
    async with gateway() as g:
        for data in (b"", b"{", b"[]", b'"x"', b"\xff"):
            async with g.http.post(g.url + CHAT, data=data) as response:
                assert response.status == 400, data
                assert (await response.json())["error"]["type"] == "invalid_request_error"


async def test_an_unknown_model_is_a_404_with_the_nearest_name() -> None:
    async with gateway() as g:
        status, answer, _ = await g.post(CHAT, {**chat(), "model": "scriptd"})
    assert status == 404
    assert answer["error"]["code"] == "model_not_found"
    assert "did you mean scripted?" in answer["error"]["message"]


async def test_a_failure_before_the_first_token_has_its_own_status_even_in_a_stream() -> None:
    async with gateway(scripted(Reply(text="x", fault="refuse"))) as g:
        status, answer, _ = await g.post(CHAT, chat(stream=True))
    assert (status, answer["error"]["code"]) == (502, "engine_error")


async def test_an_engine_that_dies_in_mid_stream_ends_it_with_an_error_event() -> None:
    async with gateway(scripted(Reply(text="one two three four five", fault="break_off"))) as g:
        events = await g.events(CHAT, chat(stream=True))
    assert "error" in orjson.loads(events[-1])
    assert "[DONE]" not in events
    assert not any('"finish_reason":"stop"' in event for event in events)
    assert g.exchanges[0].error_code == "engine_error"


async def test_a_client_that_hangs_up_frees_its_slot_at_once() -> None:
    slow = scripted(Reply(text="a b c d", fault="hang", fault_after_tokens=2), slots=1)
    async with gateway(slow) as g:
        served = g.serving.table.find("scripted")
        response = await g.http.post(g.url + CHAT, json=chat(stream=True))
        await response.content.readany()
        assert served.admission.num_running == 1
        response.close()
        async with asyncio.timeout(PATIENCE_S):
            while served.admission.num_running or not g.exchanges:
                await asyncio.sleep(0.01)
    assert g.exchanges[0].status == HUNG_UP


async def test_a_client_that_hangs_up_in_the_queue_leaves_it() -> None:
    slow = scripted(Reply(text="a b", fault="hang", fault_after_tokens=1), slots=1)
    async with gateway(slow) as g:
        admission = g.serving.table.find("scripted").admission
        first = await g.http.post(g.url + CHAT, json=chat(stream=True))
        second = asyncio.create_task(g.post(CHAT, chat()))
        async with asyncio.timeout(PATIENCE_S):
            while admission.num_waiting != 1:
                await asyncio.sleep(0.01)
            second.cancel()
            while admission.num_waiting:
                await asyncio.sleep(0.01)
        first.close()


async def test_clients_that_hang_up_together_are_no_failures(caplog: pytest.LogCaptureFixture) -> None:
    slow = scripted(Reply(text="a b", fault="hang", fault_after_tokens=1), slots=1)
    async with gateway(slow) as g:
        admission = g.serving.table.find("scripted").admission
        streams = [asyncio.create_task(g.events(CHAT, chat(stream=True))) for _ in range(20)]
        async with asyncio.timeout(PATIENCE_S):
            while admission.num_waiting < 19:
                await asyncio.sleep(0.01)
            for stream in streams:
                stream.cancel()
            await asyncio.gather(*streams, return_exceptions=True)
            while len(g.exchanges) < 20:
                await asyncio.sleep(0.01)
        assert (admission.num_running, admission.num_waiting) == (0, 0)
    assert [exchange.status for exchange in g.exchanges] == [HUNG_UP] * 20
    assert "Traceback" not in caplog.text
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_full_queue_answers_429_with_retry_after() -> None:
    slow = scripted(Reply(text="a b", fault="hang", fault_after_tokens=1), slots=1)
    async with gateway(slow, model={"queue_limit": 0}) as g:
        first = await g.http.post(g.url + CHAT, json=chat(stream=True))
        status, answer, headers = await g.post(CHAT, chat())
        first.close()
    assert (status, answer["error"]["code"]) == (429, "queue_full")
    assert int(headers["retry-after"]) >= 1


async def test_the_deadline_is_a_504_before_the_first_token_and_an_event_after_it() -> None:
    slow = scripted(Reply(match="late", text="x", delay_s=30), Reply(text="a b", fault="hang", fault_after_tokens=1))
    async with gateway(slow, model={"deadline_s": 0.2}) as g:
        status, answer, _ = await g.post(CHAT, chat("late"))
        assert (status, answer["error"]["code"]) == (504, "deadline_exceeded")
        events = await g.events(CHAT, chat("now", stream=True))
    assert orjson.loads(events[-1])["error"]["code"] == "deadline_exceeded"


class Lingering(ScriptedEngine):
    """Works on for a while after a call was left, as llama.cpp does while it reads a prompt."""

    stopped: asyncio.Future[None]

    @contextlib.asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        call.hold.keep_until(self.stopped)
        async with super().ask(call) as answer:
            yield answer


async def test_the_deadline_answers_at_once_and_the_slot_comes_back_when_the_engine_is_done() -> None:
    engine = Lingering("scripted", Script(replies=(Reply(text="x", delay_s=30),), slots=1))
    engine.stopped = asyncio.get_running_loop().create_future()
    async with gateway(engine, model={"deadline_s": 0.2}) as g:
        admission = g.serving.table.find("scripted").admission
        async with asyncio.timeout(15):
            status, answer, _ = await g.post(CHAT, chat())
        assert (status, answer["error"]["code"]) == (504, "deadline_exceeded")
        assert admission.num_running == 1
        engine.stopped.set_result(None)
        await asyncio.sleep(0)
        assert admission.num_running == 0


async def test_embeddings_take_no_slots_from_chats_and_a_list_takes_several() -> None:
    several = {"model": "m", "input": ["a", "b", "c"]}
    assert num_answers(several) == 3
    assert num_answers({"model": "m", "input": [1, 2, 3]}) == 1
    assert num_answers({"model": "m", "prompt": ["a", "b"], "n": 2}) == 4
    async with gateway(scripted(slots=1)) as g:
        served = g.serving.table.find("scripted")
        served.embedding_admission.slots = 2
        async with served.embedding_admission.hold(num_answers(several)):
            assert (await g.post(CHAT, chat()))[0] == 200


async def test_a_loading_model_is_a_503_with_retry_after_and_the_api_answers_meanwhile() -> None:
    async with gateway(scripted(load_s=30), wait=False) as g:
        status, answer, headers = await g.post(CHAT, chat())
        assert (status, answer["error"]["code"]) == (503, "engine_unavailable")
        assert int(headers["retry-after"]) >= 1
        async with g.http.get(g.url + "/v1/models") as response:
            assert (await response.json())["data"][0]["state"] == "loading"
        async with g.http.get(g.url + "/health") as response:
            assert response.status == 503


async def test_metrics_tell_requests_tokens_errors_and_times() -> None:
    async with gateway() as g:
        await g.post(CHAT, chat("one two"))
        await g.events(CHAT, chat("one two", stream=True))
        await g.post(CHAT, {**chat(), "seed": 1})
        await g.post(CHAT, {**chat(), "model": "who"})
        async with g.http.get(g.url + "/metrics") as response:
            text = await response.text()
    assert 'chaku_requests_total{model="scripted",route="chat",status="200"} 2.0' in text
    assert 'chaku_requests_total{model="scripted",route="chat",status="400"} 1.0' in text
    assert 'chaku_requests_total{model="unknown",route="chat",status="404"} 1.0' in text
    assert 'chaku_completion_tokens_total{model="scripted"} 8.0' in text
    assert 'chaku_errors_total{code="unsupported_parameter",model="scripted"} 1.0' in text
    assert 'chaku_time_to_first_token_seconds_count{model="scripted",route="chat"} 1.0' in text
    assert 'chaku_inter_token_seconds_count{model="scripted",route="chat"} 1.0' in text
    assert 'chaku_queue_length{model="scripted"} 0.0' in text
    assert 'chaku_engine_ready{model="scripted"} 1.0' in text


async def test_unknown_paths_and_methods_answer_in_openai_shape() -> None:
    async with gateway() as g:
        async with g.http.get(g.url + "/v1/nothing") as response:
            assert response.status == 404
            assert (await response.json())["error"]["code"] == "not_found"
        async with g.http.get(g.url + CHAT) as response:
            assert response.status == 405
            assert (await response.json())["error"]["code"] == "method_not_allowed"


async def test_the_api_page_needs_no_outside_request() -> None:
    async with gateway() as g:
        async with g.http.get(g.url + "/docs") as response:
            page = await response.text()
            assert response.status == 200
        assert "https://" not in page.replace("https://fastapi.tiangolo.com", "")
        async with g.http.get(g.url + "/openapi.json") as response:
            described = await response.json()
    assert set(described["paths"]) >= {CHAT, "/v1/completions", "/v1/embeddings", "/v1/models", "/health", "/metrics"}
    chat_request = described["components"]["schemas"]["ChatRequest"]
    assert chat_request["additionalProperties"] is False


async def test_a_body_over_the_limit_is_refused_unread() -> None:
    async with gateway() as g:
        port = int(g.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {2**30}\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.readuntil(b"}}")
        writer.close()
    assert b" 413 " in answer.split(b"\r\n")[0]
    assert b"payload_too_large" in answer


async def test_a_stream_that_breaks_off_is_booked_with_the_tokens_that_were_sent() -> None:
    async with gateway(scripted(Reply(text="one two three four five", fault="break_off"))) as g:
        await g.events(CHAT, chat(stream=True))
    assert (g.exchanges[0].status, g.exchanges[0].completion_tokens) == (502, 3)


@pytest.mark.parametrize("name", ["a\nERROR forged", "x" * 257, "", "\u2028", "a\x1b[2J"])
async def test_a_models_name_is_printable_and_short_and_unknown_ones_are_not_booked(name: str) -> None:
    async with gateway() as g:
        status, answer, _ = await g.post(CHAT, {**chat(), "model": name})
        unknown, _, _ = await g.post(CHAT, {**chat(), "model": "other"})
    assert (status, answer["error"]["param"], unknown) == (400, "model", 404)
    assert g.exchanges == []


@pytest.mark.parametrize("depth", [101, 300, 1000, 5000])
async def test_a_body_nested_deeper_than_it_could_be_written_again_is_refused(depth: int) -> None:
    deep = b'{"a":' * depth + b"1" + b"}" * depth
    body = b'{"model":"scripted","messages":[{"role":"user","content":"x"}],"metadata":' + deep + b"}"
    async with gateway() as g, g.http.post(g.url + CHAT, data=body) as response:
        assert (response.status, (await response.json())["error"]["code"]) == (400, "invalid_json")


@pytest.mark.parametrize("padding", [1, 100_000])
async def test_an_integer_that_would_be_rounded_is_refused_and_the_largest_arrives(padding: int) -> None:
    engine = CannedEngine({"content": "fine"})
    async with gateway(engine) as g:
        for largest, expected in ((2**64 - 1, 200), (2**64, 400)):
            limits = {"type": "integer", "maximum": largest, "description": "x" * padding}
            tool = {"type": "function", "function": {"name": "f", "parameters": limits}}
            body = json.dumps({**chat(), "model": "canned", "tools": [tool]})
            async with g.http.post(g.url + CHAT, data=body) as response:
                assert response.status == expected, await response.text()
    (sent,) = engine.bodies
    assert sent["tools"][0]["function"]["parameters"]["maximum"] == 2**64 - 1


async def test_health_can_be_asked_by_head() -> None:
    async with gateway() as g, g.http.head(g.url + "/health") as response:
        assert response.status == 200


async def test_health_says_failed_where_no_model_can_be_started() -> None:
    async with gateway() as g:
        for served in g.serving.table:
            served.replicas[0].failure = ModelError("no such file")
        async with g.http.get(g.url + "/health") as response:
            assert (response.status, (await response.json())["status"]) == (503, "failed")


def test_a_scripts_match_that_is_no_expression_is_refused_when_it_is_read() -> None:
    with pytest.raises(ValidationError, match="not a regular expression"):
        Reply(match="(", text="x")


async def test_more_answers_than_slots_are_refused_before_the_line() -> None:
    async with gateway(scripted(slots=2)) as g:
        status, answer, _ = await g.post(CHAT, chat(n=3))
    assert (status, answer["error"]["param"]) == (400, "n")
    assert g.exchanges[0].queue_s is None
