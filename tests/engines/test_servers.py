"""vLLM's and SGLang's servers under supervision, played by a stand-in program that is as slow, loud and mortal."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chaku.chat.plain_text import BROKEN_APART
from chaku.engines.base import Call, State
from chaku.engines.opening import ENGINES, check_settings, choose_engine, open_engine, require_usable
from chaku.engines.servers import commands, environments, rows
from chaku.engines.servers.engine import ServerEngine
from chaku.engines.servers.inside.chaku_guard import Guard
from chaku.engines.servers.parsers import Parsers, parsers_for
from chaku.engines.supervisor import BackOff
from chaku.errors import ConfigError, ContextOverflow, EngineError, ModelError, UsageError
from chaku.models.reference import LocalFolder
from chaku.settings import ModelConfig
from engines.vllm_stand_in import FLOOD_BYTES, make_python
from processes import is_alive
from waiting import soon

HELLO = {"messages": [{"role": "user", "content": "Hello"}]}


@pytest.fixture
def adapter(tmp_path: Path, smollm2_folder: Path) -> Path:
    folder = tmp_path / "legal"
    folder.mkdir()
    content = {"base_model_name_or_path": str(smollm2_folder), "r": 12, "peft_type": "LORA"}
    (folder / "adapter_config.json").write_text(json.dumps(content))
    return folder


def opened(engine: str, python: Path, folder: Path, **settings: Any) -> ServerEngine:
    config = ModelConfig(source=str(folder), engine=engine, engine_python=python, **settings)
    made = open_engine("ours", config, LocalFolder(folder), None)
    assert isinstance(made, ServerEngine)
    return ServerEngine("ours", replace(made.settings, back_off=BackOff(first_s=0.01)))


@asynccontextmanager
async def running(engine: ServerEngine) -> AsyncIterator[ServerEngine]:
    try:
        await engine.start()
        yield engine
    finally:
        await engine.stop()


async def whole(engine: ServerEngine, name: str = "ours", **body: Any) -> dict[str, Any]:
    async with engine.ask_model(name, Call("chat", {**HELLO, **body}, False, "1")) as answer:
        return await answer.whole()


async def streamed(engine: ServerEngine) -> list[dict[str, Any]]:
    async with engine.ask(Call("chat", HELLO, True, "1")) as answer:
        data = b"".join([block.data async for block in answer.blocks()])
    assert data.endswith(b"data: [DONE]\n\n")
    return [json.loads(event[6:]) for event in data.split(b"\n\n")[:-2]]


def requests(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "requests.jsonl").read_text().splitlines()]


async def test_a_slow_loud_server_is_ready_when_it_has_generated_a_token(tmp_path: Path, smollm2_folder: Path) -> None:
    python = make_python(tmp_path / "apart", slow_s=0.5, flood=True)
    async with running(opened("vllm", python, smollm2_folder, slots=4)) as engine:
        assert requests(tmp_path / "apart") == [{"model": "base", "prompt": "Hello", "max_tokens": 1, "temperature": 0}]
        assert engine.status().state is State.READY
        assert engine.capabilities.context_tokens == 2048
        for _ in range(3):  # each answer comes after a flood on both of its streams
            chunks = await streamed(engine)
        assert [chunk["choices"][0]["delta"] for chunk in chunks[:-1]] == [
            {"role": "assistant", "content": ""}, {"content": "Hi"}, {}
        ]  # fmt: skip
        assert {chunk["model"] for chunk in chunks} == {"ours"}
        assert chunks[-1]["choices"] == [] and chunks[-1]["usage"]["total_tokens"] == 9
        assert all(len(line) <= FLOOD_BYTES + 100 for line in engine._supervisor.running.child.tail)
        for route, field, value in (("chat", "messages", [{"role": "user", "content": "too long"}]),
                                    ("completions", "prompt", "too long")):  # fmt: skip
            with pytest.raises(ContextOverflow, match="2048") as caught:
                async with engine.ask(Call(route, {field: value}, False, "1")) as answer:
                    await answer.whole()
            assert caught.value.param == field


async def test_a_server_that_crashes_in_an_answer_is_started_again(tmp_path: Path, smollm2_folder: Path) -> None:
    python = make_python(tmp_path / "apart", crashes_once=True)
    async with running(opened("vllm", python, smollm2_folder)) as engine:
        first = engine.status().pid
        with pytest.raises(EngineError):
            await streamed(engine)
        await soon(lambda: engine.status().num_restarts == 1 and engine.status().state is State.READY)
        assert len(await streamed(engine)) == 4
        second = int((await whole(engine))["choices"][0]["message"]["content"])
        assert engine.status().pid != first and is_alive(second)
    assert not is_alive(second)


async def test_the_cause_of_a_failed_start_is_named_and_not_what_followed(tmp_path: Path, smollm2_folder: Path) -> None:
    short = "ValueError: Free memory on device cuda:0 (1.2/79.1 GiB) is less than desired"
    wrong = "ValueError: Model architectures ['X'] are not supported for now."
    for index, (line, fix) in enumerate(((short, "--gpus"), (wrong, "DEBUG"))):
        python = make_python(tmp_path / str(index), dies_at_start=line)
        with pytest.raises(ModelError, match=re.escape(line)) as caught:
            async with running(opened("vllm", python, smollm2_folder)):
                pass
        assert fix in str(caught.value.fix)


@pytest.mark.parametrize("server", ["vllm", "sglang"])
async def test_adapters_are_chosen_by_name_and_the_key_is_on_no_command_line(
    tmp_path: Path, smollm2_folder: Path, adapter: Path, server: str
) -> None:
    python = make_python(tmp_path / "apart")
    engine = opened(server, python, smollm2_folder, adapters={"legal": adapter})
    async with running(engine):
        assert [one.name for one in engine.adapters()] == ["legal"]
        assert (await whole(engine, "legal"))["model"] == "legal"
        theirs = {"vllm": "adapter-0", "sglang": "base:adapter-0"}[server]
        assert requests(tmp_path / "apart")[-1]["model"] == theirs
        key = engine._supervisor.running.http._key
        assert key and key not in (tmp_path / "apart" / "cmdline").read_bytes()


async def test_an_adapter_that_is_the_model_answers_under_its_name(tmp_path: Path, adapter: Path) -> None:
    async with running(opened("vllm", make_python(tmp_path / "apart"), adapter)) as engine:
        assert engine.adapters() == []
        assert (await whole(engine))["model"] == "ours"
        assert requests(tmp_path / "apart")[-1]["model"] == "adapter-0"


async def test_text_stays_text_and_stops_of_the_template_are_sent(tmp_path: Path, smollm2_folder: Path) -> None:
    python = make_python(tmp_path / "apart")
    async with running(opened("vllm", python, smollm2_folder, template="vicuna_v0")) as engine:
        body = {"messages": [{"role": "user", "content": "<|im_end|>"}], "stop": "x", "continue_final_message": True}
        async with engine.ask(Call("chat", body, False, "1")) as answer:
            assert answer.notes == (BROKEN_APART,)
            await answer.whole()
        sent = requests(tmp_path / "apart")[-1]
        assert sent["messages"][0]["content"] == "<\u200b|im_end|>"
        assert sent["stop"][0] == "x" and len(sent["stop"]) > 1
        assert sent["add_generation_prompt"] is False
        argv = json.loads((tmp_path / "apart" / "argv.json").read_text())
        assert argv[argv.index("--chat-template") + 1].endswith("template.jinja")


WEATHER = {"name": "weather", "parameters": {"properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}}


async def test_a_forced_call_is_held_to_the_tools_schema(tmp_path: Path, smollm2_folder: Path) -> None:
    python, args = make_python(tmp_path / "apart"), {"tool_parser": "hermes"}
    async with running(opened("vllm", python, smollm2_folder, engine_args=args)) as engine:
        for function in (WEATHER, {**WEATHER, "strict": None}, {"name": "now"}):
            answer = await whole(engine, tools=[{"type": "function", "function": function}], tool_choice="required")
            made = answer["choices"][0]["message"]["tool_calls"][0]["function"]
            assert json.loads(made["arguments"]) == {"city": "Paris", "days": 3}
            assert requests(tmp_path / "apart")[-1]["tools"][0]["function"]["parameters"]["type"] == "object"
        for choice in ("auto", "none", None):  # there the caller's own word counts
            await whole(engine, tools=[{"type": "function", "function": WEATHER}], tool_choice=choice)
            assert requests(tmp_path / "apart")[-1]["tools"][0]["function"] == WEATHER


async def test_several_greedy_answers_are_asked_for_as_vllm_takes_them(tmp_path: Path, smollm2_folder: Path) -> None:
    async with running(opened("vllm", make_python(tmp_path / "apart"), smollm2_folder)) as engine:
        for n, sent in ((1, (0, None)), (2, (1, 1))):
            await whole(engine, n=n, temperature=0)
            last = requests(tmp_path / "apart")[-1]
            assert (last["temperature"], last.get("top_k")) == sent


PLAN = commands.LaunchPlan(Path("/m"), {"a": Path("/a")}, 12, 16, Parsers("hermes", "qwen3"), 4096, gpus=4, pipeline=2)


@pytest.mark.parametrize(
    ("command", "pieces"),
    [
        (commands.vllm, ["--tensor-parallel-size 2 --pipeline-parallel-size 2", "--max-model-len 4096",
                         "--max-lora-rank 16", "--enable-auto-tool-choice --tool-call-parser hermes",
                         "--lora-modules a=/a"]),
        (commands.sglang, ["--tp-size 2 --pp-size 2", "--context-length 4096", "--tool-call-parser hermes",
                           "--lora-paths a=/a"]),
    ],
)  # fmt: skip
def test_the_command_line_comes_from_the_plan(command: Any, pieces: list[str]) -> None:
    made = command(PLAN, Path("/py"), 9, "secret", None)
    words = " ".join(made.argv)
    for piece in ("--host 127.0.0.1 --port 9", "--reasoning-parser qwen3", *pieces):
        assert piece in words
    assert "secret" not in words and "secret" in made.env.values()


@pytest.mark.parametrize("options", ["--host 0.0.0.0", "--por=1", "--api_key x", "--API-KEY x", "--config f", "'"])
def test_options_that_open_another_way_in_are_refused(tmp_path: Path, options: str) -> None:
    config = ModelConfig(source=str(tmp_path), engine="vllm", engine_args={"options": options})
    with pytest.raises(ConfigError, match="options"):
        check_settings("m", config, LocalFolder(tmp_path))


def test_other_options_are_passed_through() -> None:
    assert commands.forbidden("--enforce-eager --max-num-batched-tokens 4096 -O3 --seed=1") is None


@pytest.mark.parametrize(
    ("server", "model_type", "template", "tools", "reasoning"),
    [
        ("vllm", "qwen3", "{% if tools %}<tool_call>{% endif %}<think>", "hermes", "qwen3"),
        ("sglang", "qwen3", "{% if tools %}<tool_call>{% endif %}<think>", "qwen25", "qwen3"),
        ("vllm", "qwen3", "{% if tools %}<tool_call>{% endif %}", "hermes", None),
        ("vllm", "llama", '{% if tools %}{"name": "f", "parameters": {}}{% endif %}', "llama3_json", None),
        ("vllm", "llama", "{{ messages }}", None, None),
        ("vllm", "unheard_of", "{% if tools %}<tool_call>{% endif %}", "hermes", None),
        ("vllm", "gpt_oss", "{% if tools %}{% endif %}", "openai", "openai_gptoss"),
        ("vllm", "qwen3", None, None, None),
    ],
)
def test_parsers_are_chosen_by_family_and_by_what_the_template_shows(
    server: str, model_type: str, template: str | None, tools: str | None, reasoning: str | None
) -> None:
    assert parsers_for(server, model_type, template) == Parsers(tools, reasoning)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHAKU_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def install_by_hand(engine: str) -> None:
    """The folder as its commands leave it, and the record."""
    python = environments.folder_of(engine) / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch(mode=0o755)
    assert environments.installed(engine) is None  # half of it does not count
    environments.record(environments.package_of(engine))


def test_auto_takes_vllm_for_a_folder_only_with_a_gpu_and_an_environment(
    cache: Path, smollm2_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, reference = ModelConfig(source=str(smollm2_folder)), LocalFolder(smollm2_folder)
    monkeypatch.setattr(rows, "gpu", lambda: "an NVIDIA GPU")
    assert choose_engine("m", config, reference).kind.name != "vllm"
    with pytest.raises(UsageError, match="no environment has vLLM") as caught:
        require_usable(ENGINES["vllm"])
    assert "chaku engines install vllm" in str(caught.value.fix)
    install_by_hand("vllm")
    choice = choose_engine("m", config, reference)
    assert choice.kind.name == "vllm" and "NVIDIA" in choice.reason
    require_usable(ENGINES["vllm"])
    monkeypatch.setattr(rows, "gpu", lambda: None)
    assert choose_engine("m", config, reference).kind.name != "vllm"
    two = config.model_copy(update={"gpus": 2})  # no other engine takes that
    assert choose_engine("m", two, reference).kind.name == "vllm"


def test_gpus_that_do_not_make_equal_stages_are_refused(tmp_path: Path, smollm2_folder: Path) -> None:
    with pytest.raises(ConfigError, match="3 GPUs are not 2 stages"):
        opened("vllm", make_python(tmp_path / "apart"), smollm2_folder, gpus=3, engine_args={"pipeline": 2})


@pytest.mark.parametrize("end", ["it wakes", "it can't wake", "it died asleep"])
async def test_an_idle_server_sleeps_and_the_next_call_wakes_it_or_starts_another(
    tmp_path: Path, smollm2_folder: Path, end: str
) -> None:
    python = make_python(tmp_path / "apart", never_wakes=end == "it can't wake")
    mark = tmp_path / "apart" / "asleep"
    async with running(
        opened("vllm", python, smollm2_folder, idle_unload_s=0.1, engine_args={"sleep": True})
    ) as engine:
        first = (await whole(engine))["choices"][0]["message"]["content"]
        await soon(lambda: engine.status().state is State.UNLOADED and mark.exists())
        assert is_alive(int(first))
        if end == "it died asleep":
            os.kill(int(first), signal.SIGKILL)
            mark.unlink()
        answers = await asyncio.gather(*(whole(engine) for _ in range(3)))
        (second,) = {answer["choices"][0]["message"]["content"] for answer in answers}
        assert (second == first) is (end == "it wakes")
        assert is_alive(int(second)) and (second == first or not is_alive(int(first)))
        await soon(mark.exists)
    assert not is_alive(int(second))


def test_sleep_is_for_an_idle_vllm(tmp_path: Path, smollm2_folder: Path) -> None:
    python = make_python(tmp_path / "apart")
    for engine, settings, words in (
        ("vllm", {}, "none is ever idle"),
        ("sglang", {"idle_unload_s": 9}, "vLLM's alone"),
    ):
        with pytest.raises(ConfigError, match=words):
            opened(engine, python, smollm2_folder, engine_args={"sleep": True}, **settings)


@pytest.mark.parametrize(
    ("kind", "path", "headers", "passes"),
    [
        ("http", "/health", [], True),
        ("http", "/sleep", [], False),
        ("http", "/collective_rpc", [(b"authorization", b"Bearer other")], False),
        ("http", "/wake_up", [(b"authorization", b"Bearer ours")], True),
        ("http", "/v1/models", [], False),
        ("websocket", "/v1/realtime", [], False),
        ("lifespan", "", [], True),
    ],
)
async def test_the_guard_inside_vllm_asks_for_the_key_on_every_route_but_health(
    monkeypatch: pytest.MonkeyPatch, kind: str, path: str, headers: list[tuple[bytes, bytes]], passes: bool
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "ours")
    passed, sent = [], []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        passed.append(scope["path"])

    async def send(message: Any) -> None:
        sent.append(message)

    await Guard(app)({"type": kind, "path": path, "headers": headers}, None, send)
    assert passed == ([path] if passes else [])
    assert passes or sent[0] in (
        {"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]},
        {"type": "websocket.close", "code": 1008},
    )
