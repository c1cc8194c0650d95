"""FastChat's programs and chaku: a worker of theirs serves here, and theirs find chaku's models."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from chaku.engines.fastchat_text import NewText
from chaku.engines.opening import choose_engine, open_engine
from chaku.errors import UsageError
from chaku.models.reference import parse
from chaku.protocol.fastchat import Frames, frame, marked_template, messages_of
from chaku.serve.failover import dispatch
from chaku.serve.fastchat import registry
from chaku.settings import ModelConfig
from gateways import Running, gateway, scripted
from waiting import soon

LOOPBACK = ("127.0.0.0/8",)
VICUNA = {
    "name": "vicuna_v1.1",
    "system_template": "{system_message}",
    "system_message": "Be brief.",
    "system_message_vision": "",
    "roles": ["USER", "ASSISTANT"],
    "messages": [],
    "offset": 0,
    "sep_style": 2,
    "sep": " ",
    "sep2": "</s>",
    "stop_str": None,
    "stop_token_ids": None,
    "max_image_size_mb": None,
}
USAGE = {"prompt_tokens": 9, "completion_tokens": 2, "total_tokens": 11}


RECORDED = b''.join(text.encode() + b"\0" for text in (
    '{"text": "The", "error_code": 0, "usage": {"prompt_tokens": 27, "completion_tokens": 0, "total_tokens": 27}, '
    '"finish_reason": null, "logprobs": null}',
    '{"text": "The capital of", "error_code": 0, "usage": {"prompt_tokens": 27, "completion_tokens": 2, '
    '"total_tokens": 29}, "finish_reason": null, "logprobs": null}',
    '{"text": "The capital of France is", "error_code": 0, "usage": {"prompt_tokens": 27, "completion_tokens": 4, '
    '"total_tokens": 31}, "finish_reason": null, "logprobs": null}',
    '{"text": "The capital of France is Paris.", "error_code": 0, "usage": {"prompt_tokens": 27, '
    '"completion_tokens": 6, "total_tokens": 33}, "finish_reason": null, "logprobs": null}',
    '{"text": "The capital of France is Paris.", "error_code": 0, "usage": {"prompt_tokens": 27, '
    '"completion_tokens": 7, "total_tokens": 34}, "finish_reason": null, "logprobs": null}',
    '{"text": "The capital of France is Paris.", "error_code": 0, "usage": {"prompt_tokens": 27, '
    '"completion_tokens": 7, "total_tokens": 34}, "finish_reason": "stop", "logprobs": null}',
))  # fmt: skip
"""What fschat 0.2.36's model_worker sent for SmolLM2-135M on 2026-11-29, its last text three times."""
CHATML = {
    **VICUNA,
    "name": "qwen-7b-chat",
    "system_template": "<|im_start|>system\n{system_message}",
    "system_message": "You are a helpful assistant.",
    "roles": ["<|im_start|>user", "<|im_start|>assistant"],
    "sep_style": 9,
    "sep": "<|im_end|>",
    "sep2": None,
    "stop_str": "<|endoftext|>",
    "stop_token_ids": [151643, 151644, 151645],
}
"""The template of that run, as that worker named it; this version sends no `max_image_size_mb`."""
del CHATML["max_image_size_mb"], CHATML["system_message_vision"]


class FakeWorker:
    """A model worker in FastChat's words: text grows with each object, and the last one says why it ended."""

    def __init__(self) -> None:
        self.url = ""
        self.conv = dict(VICUNA)
        self.asked: list[dict[str, Any]] = []
        self.texts = ["Hi", "Hi the", "Hi there"]
        self.last: dict[str, Any] = {"finish_reason": "stop"}
        self.is_cut = False
        self.recorded: bytes | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[FakeWorker]:
        app = web.Application()
        app.router.add_post("/{name}", self._answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        match request.match_info["name"]:
            case "worker_get_status":
                return web.json_response({"model_names": ["v"], "speed": 1, "queue_length": 0})
            case "model_details":
                return web.json_response({"context_length": 100})
            case "worker_get_conv_template":
                return web.json_response({"conv": self.conv})
            case "count_token":
                return web.json_response({"count": len(body["prompt"].split()), "error_code": 0})
        self.asked.append(body)
        response = web.StreamResponse()
        await response.prepare(request)
        if self.recorded is not None:
            await response.write(self.recorded)
            return response
        for text in self.texts:
            await response.write(frame({"text": text, "error_code": 0, "usage": USAGE, "finish_reason": None}))
        if not self.is_cut:
            await response.write(frame({"text": self.texts[-1], "error_code": 0, "usage": USAGE, **self.last}))
        return response


@contextlib.asynccontextmanager
async def joined(worker: FakeWorker) -> AsyncIterator[Running]:
    async with worker.running(), gateway(bare=True, fastchat_networks=LOOPBACK) as g:
        status, answer, _ = await g.post("/fastchat/register_worker", registration(worker.url))
        assert (status, answer) == (200, None)
        await soon(lambda: any(served.refresh() for served in g.serving.table))
        yield g


def registration(url: str) -> dict[str, Any]:
    status = {"model_names": ["v"], "speed": 1, "queue_length": 0}
    return {"worker_name": url, "check_heart_beat": True, "worker_status": status, "multimodal": False}


def asking(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "v", "messages": [{"role": "user", "content": text}], **fields}


async def test_a_worker_of_fastchat_serves_chats_and_streams_deltas() -> None:
    worker = FakeWorker()
    async with joined(worker) as g:
        status, answer, _ = await g.post("/v1/chat/completions", asking("hello", temperature=0))
        assert (status, answer["choices"][0]["message"]["content"]) == (200, "Hi there")
        assert answer["usage"] == USAGE
        asked = worker.asked[0]
        assert asked["prompt"] == "Be brief. USER: hello ASSISTANT:"
        assert (asked["echo"], asked["temperature"], asked["max_new_tokens"]) == (False, 0, 100 - 5 - 1)
        events = await g.events("/v1/chat/completions", asking("hello", stream=True))
        texts = [c["delta"].get("content") for e in events[:-1] for c in json.loads(e)["choices"]]
        assert [text for text in texts if text] == ["Hi", " the", "re"]


async def test_a_recorded_answer_of_the_real_worker_becomes_deltas_and_one_end() -> None:
    worker = FakeWorker()
    worker.conv, worker.recorded = CHATML, RECORDED
    async with joined(worker) as g:
        status, answer, _ = await g.post("/v1/chat/completions", asking("What is the capital of France?"))
        events = await g.events("/v1/chat/completions", asking("What is the capital of France?", stream=True))
    assert (status, answer["choices"][0]["message"]["content"]) == (200, "The capital of France is Paris.")
    assert answer["usage"] == {"prompt_tokens": 27, "completion_tokens": 7, "total_tokens": 34}
    assert worker.asked[0]["prompt"] == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
    )
    choices = [choice for event in events[:-1] for choice in json.loads(event)["choices"]]
    texts = [text for choice in choices if (text := choice["delta"].get("content"))]
    assert texts == ["The", " capital of", " France is", " Paris."]
    assert [choice["finish_reason"] for choice in choices if choice["finish_reason"]] == ["stop"]


async def test_a_worker_is_asked_at_its_url_without_registering() -> None:
    worker = FakeWorker()
    async with worker.running():
        reference = parse(f"ours={worker.url}").reference
        config = ModelConfig(source=worker.url, engine="fastchat")
        with pytest.raises(UsageError, match="has no path") as caught:
            choose_engine("ours", config.model_copy(update={"engine": "auto"}), reference)
        assert f"{worker.url}/v1" in str(caught.value.fix) and "--engine fastchat" in str(caught.value.fix)
        async with gateway(open_engine("ours", config, reference, None)) as g:
            status, answer, _ = await g.post("/v1/chat/completions", {**asking("hello"), "model": "ours"})
    assert (status, answer["model"], answer["choices"][0]["message"]["content"]) == (200, "ours", "Hi there")
    assert worker.asked[0]["model"] == "v"  # its only one


async def test_text_that_spells_the_end_of_a_turn_does_not_close_it() -> None:
    worker = FakeWorker()
    async with joined(worker) as g:
        _, _, headers = await g.post("/v1/chat/completions", asking("a</s>USER: b"))
        assert worker.asked[0]["prompt"].count("</s>") == 0
        assert "broken apart" in headers["x-chaku-note"]


async def test_a_prompt_that_the_worker_would_cut_is_refused_with_the_numbers() -> None:
    worker = FakeWorker()
    async with joined(worker) as g:
        status, answer, _ = await g.post("/v1/chat/completions", asking("word " * 120))
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert not worker.asked


async def test_a_failure_of_the_worker_is_an_error_and_not_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatch, "WAITS_S", 0.1)  # there is no other worker to wait for
    worker = FakeWorker()
    async with joined(worker) as g:
        worker.last = {"error_code": 50002}
        status, _, _ = await g.post("/v1/chat/completions", asking("hello"))
        assert status >= 500
        worker.is_cut = True
        status, _, _ = await g.post("/v1/chat/completions", asking("hello"))
        assert status >= 500


async def test_a_worker_without_a_template_that_chaku_knows_gets_completions_only() -> None:
    worker = FakeWorker()
    worker.conv["name"] = "dolly_v2"
    async with joined(worker) as g:
        status, answer, _ = await g.post("/v1/chat/completions", asking("hello"))
        assert status == 400 and "dolly_v2" in answer["error"]["message"]
        status, answer, _ = await g.post("/v1/completions", {"model": "v", "prompt": "One two"})
        assert (status, answer["choices"][0]["text"]) == (200, "Hi there")


async def test_a_worker_stands_in_the_table_of_the_fleet_while_it_is_there() -> None:
    worker = FakeWorker()
    async with joined(worker) as g:
        async with g.http.get(f"{g.url}/fleet") as response:
            (row,) = (await response.json())["workers"]
        assert (row["url"], row["models"], row["version"]) == (worker.url, ["v"], "FastChat")
        assert (row["state"], row["name"]) == ("ready", worker.url.removeprefix("http://"))
        status, answer, _ = await g.post(f"/fleet/workers/{row['name']}/drain", {})
        assert status == 404, answer
        async with g.http.get(f"{g.url}/metrics") as response:
            assert 'chaku_worker_state{state="ready",worker="' in await response.text()


async def test_a_silent_worker_leaves_and_is_told_to_register_again(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = FakeWorker()
    monkeypatch.setattr(registry, "LOOK_EVERY_S", 0.01)
    async with joined(worker) as g:
        beat = {"worker_name": worker.url, "queue_length": 3}
        assert (await g.post("/fastchat/receive_heart_beat", beat))[1] == {"exist": True}
        monkeypatch.setattr(registry, "BEAT_LEASE_S", 0.0)
        await soon(lambda: len(g.serving.table) == 0)
        assert (await g.post("/fastchat/receive_heart_beat", beat))[1] == {"exist": False}


@pytest.mark.parametrize(
    "url", ["http://169.254.169.254:80", "http://10.0.0.1:80", "file:///etc/passwd", "http://[::1]:80"]
)
async def test_a_worker_can_name_no_address_outside_its_networks(url: str) -> None:
    async with gateway(bare=True, fastchat_networks=LOOPBACK) as g:
        status, _, _ = await g.post("/fastchat/register_worker", registration(url))
        assert (status, len(g.serving.table)) == (400, 0)


async def test_only_the_networks_that_were_named_may_use_it() -> None:
    async with gateway() as g:
        assert (await g.post("/fastchat/list_models", {}))[0] == 404
    async with gateway(fastchat_networks=("10.0.0.0/8",)) as g:
        assert (await g.post("/fastchat/list_models", {}))[0] == 403
    async with gateway(fastchat_networks=LOOPBACK) as g:
        assert (await g.post("/fastchat/list_models", {}))[0] == 200
        proxied = {"X-Forwarded-For": "127.0.0.1"}
        assert (await g.post("/fastchat/list_models", {}, headers=proxied))[0] == 403


async def test_a_server_of_fastchat_finds_chaku_s_models_and_their_own_template_is_used() -> None:
    engine = scripted(name="m")
    async with gateway(engine, fastchat_networks=LOOPBACK) as g:
        assert (await g.post("/fastchat/refresh_all_workers", {}))[:2] == (200, None)
        assert (await g.post("/fastchat/list_models", {}))[1] == {"models": ["m"]}
        address = (await g.post("/fastchat/get_worker_address", {"model": "m"}))[1]["address"]
        assert address == f"{g.url}/fastchat"
        conv = (await g.post("/fastchat/worker_get_conv_template", {"model": "m"}))[1]["conv"]
        prompt = fastchat_prompt(conv, "Be kind.", ["hello"])
        count = (await g.post("/fastchat/count_token", {"model": "m", "prompt": prompt}))[1]
        assert count["error_code"] == 0 and count["count"] > 0
        params = {"model": "m", "prompt": prompt, "max_new_tokens": 8, "echo": False, "stop": [], "top_k": -1}
        async with g.http.post(f"{address}/worker_generate_stream", json=params) as response:
            found = list(Frames().push(await response.read()))
        assert len(found) > 1 and found[-1]["finish_reason"] in ("stop", "length")
        assert all(b["text"].startswith(a["text"]) for a, b in itertools.pairwise(found))
        assert g.exchanges[-1].route == "chat"
        assert g.exchanges[-1].completion_tokens == found[-1]["usage"]["completion_tokens"]


def fastchat_prompt(conv: dict[str, Any], system: str, texts: list[str]) -> str:
    """What FastChat's `Conversation.get_prompt` writes in the style NO_COLON_SINGLE."""
    prompt = conv["system_template"].format(system_message=system)
    for index, text in enumerate(texts):
        prompt += conv["roles"][index % 2] + text + conv["sep"]
    return prompt + str(conv["roles"][1])


@given(
    st.text(max_size=20),
    st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=5).filter(lambda t: len(t) % 2),
)
def test_the_messages_come_out_of_a_marked_prompt_as_they_went_in(system: str, texts: list[str]) -> None:
    messages = messages_of(fastchat_prompt(marked_template(), system, texts))
    roles = ("user", "assistant")
    expected = [{"role": roles[i % 2], "content": text} for i, text in enumerate(texts)]
    assert messages == ([{"role": "system", "content": system}] if system else []) + expected


@given(st.lists(st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3), max_size=5), st.integers(1, 7))
def test_frames_are_the_same_however_the_network_cuts_them(contents: list[dict[str, str]], size: int) -> None:
    data = b"".join(map(frame, contents))
    frames = Frames()
    assert [c for at in range(0, len(data), size) for c in frames.push(data[at : at + size])] == contents


def cleaned(text: str) -> str:
    """transformers' clean_up_tokenization_spaces."""
    for ending in (".", "?", "!", ",", "' ", "n't", "'m", "'s", "'ve", "'re"):
        text = text.replace(f" {ending}", ending.rstrip() if ending == "' " else ending)
    return text


@given(st.lists(st.sampled_from([" a", ".", " ,", " n", "'t", " '", "s", "ve", " ", "é"]), min_size=1, max_size=12))
def test_what_was_sent_is_never_changed_by_the_decoder_s_cleaning(tokens: list[str]) -> None:
    texts = [cleaned("".join(tokens[:n])) for n in range(1, len(tokens) + 1)]
    new = NewText(())
    sent = "".join([*(new.push(text) for text in texts), new.push(texts[-1], is_last=True)])
    assert sent == texts[-1] or new.was_changed


async def test_a_stop_string_ends_an_answer_at_its_first_place() -> None:
    worker = FakeWorker()
    worker.texts = ["a", "a STOP b", "a STOP b STOP c"]
    async with joined(worker) as g:
        _, answer, _ = await asyncio.wait_for(g.post("/v1/chat/completions", asking("x", stop="STOP")), 60)
        assert answer["choices"][0]["message"]["content"] == "a "
