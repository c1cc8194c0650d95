"""Azure ML's /score, and the sample record of a model card."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from canned_engine import USAGE
from chaku.cli.main import root
from chaku.engines.base import Answer, Block, Call, Capabilities
from chaku.engines.scripted import Script, ScriptedEngine
from gateways import gateway, scripted

CARD = {
    "input_data": {
        "input_string": ["My name is John and I am", "Once upon a time,"],
        "parameters": {"max_new_tokens": 25, "do_sample": True, "temperature": 0.5, "top_p": 0.5},
    }
}
"""The request on the card of lmsys-vicuna in Azure's catalog."""


class Continuing(ScriptedEngine):
    """Continues each text with its number and the name of the engine."""

    def __init__(self, name: str = "continuing", num_answered: int | None = None) -> None:
        super().__init__(name, Script())
        self.bodies: list[dict[str, Any]] = []
        self.num_answered = num_answered

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(parameters=frozenset({"top_k", "repetition_penalty"}), slots=8)

    @asynccontextmanager
    async def ask(self, call: Call) -> AsyncIterator[Answer]:
        self.bodies.append(call.body)
        yield _Continued(self.name, len(call.body["prompt"][: self.num_answered]))


class _Continued(Answer):
    def __init__(self, name: str, num_texts: int) -> None:
        self.name, self.num_texts = name, num_texts

    async def whole(self) -> dict[str, Any]:
        numbers = reversed(range(self.num_texts))  # an engine may finish them in any order
        choices = [{"index": i, "text": f" {i} {self.name}", "finish_reason": "stop"} for i in numbers]
        return {"id": "cmpl-1", "object": "text_completion", "choices": choices, "usage": USAGE}

    def blocks(self) -> AsyncIterator[Block]:
        raise AssertionError("never streamed")


async def test_the_request_of_the_card_gets_an_answer_of_its_shape_without_a_chat_template() -> None:
    engine = Continuing()
    async with gateway(engine) as g:
        status, answer, _ = await g.post("/score", CARD)
    assert status == 200
    assert answer == [{"0": "My name is John and I am 0 continuing"}, {"0": "Once upon a time, 1 continuing"}]
    assert engine.bodies == [
        {
            "prompt": CARD["input_data"]["input_string"],
            "temperature": 0.5,
            "top_p": 0.5,
            "max_tokens": 25,
            "model": "continuing",
        }
    ]
    assert g.exchanges[0].completion_tokens == 5


@pytest.mark.parametrize(
    ("parameters", "asked"),
    [
        ({}, {"temperature": 0}),
        ({"do_sample": False}, {"temperature": 0}),
        ({"do_sample": True}, {}),
        ({"temperature": 0.7}, {"temperature": 0.7}),
        ({"top_k": 5, "repetition_penalty": 1.1}, {"top_k": 5, "repetition_penalty": 1.1}),
    ],
)
async def test_texts_are_sampled_where_that_is_asked_for(parameters: dict[str, Any], asked: dict[str, Any]) -> None:
    engine = Continuing()
    async with gateway(engine) as g:
        status, answer, _ = await g.post(
            "/score", {"input_data": {"input_string": ["a"], "parameters": {"return_full_text": False, **parameters}}}
        )
    assert (status, answer) == (200, [{"0": " 0 continuing"}])
    assert {k: v for k, v in engine.bodies[0].items() if k not in ("prompt", "model")} == asked


@pytest.mark.parametrize(
    ("data", "param"),
    [
        ({"input_string": ["a"], "parameters": {"num_beams": 4}}, "input_data.parameters.num_beams"),
        ({"input_string": ["a"], "parameters": {"temperature": 0}}, "input_data.parameters.temperature"),
        ({"input_string": ["a"], "parameters": {"do_sample": False, "top_p": 0.5}}, "input_data.parameters.top_p"),
        ({"input_string": "a"}, "input_data.input_string"),
        ({"input_string": []}, "input_data.input_string"),
        ({"input_string": ["a"], "columns": []}, "input_data.columns"),
        ({}, "input_data.input_string"),
    ],
)
async def test_what_cant_be_honoured_is_refused_by_name(data: dict[str, Any], param: str) -> None:
    async with gateway(Continuing()) as g:
        status, body, _ = await g.post("/score", {"input_data": data})
    assert (status, body["error"]["param"]) == (400, param)


async def test_of_several_models_the_header_or_the_setting_names_one() -> None:
    two = (Continuing("a"), Continuing("b"))
    async with gateway(*two) as g:
        status, body, _ = await g.post("/score", CARD)
        assert (status, body["error"]["param"]) == (400, "model")
        assert "azureml-model-deployment" in body["error"]["message"]
        _, answer, _ = await g.post("/score", CARD, headers={"azureml-model-deployment": "b"})
        assert answer[0]["0"].endswith("0 b")
        status, _, _ = await g.post("/score", CARD, headers={"azureml-model-deployment": "c"})
        assert status == 404
    async with gateway(Continuing("a"), Continuing("b"), score_model="a") as g:
        _, answer, _ = await g.post("/score", CARD)
        assert answer[0]["0"].endswith("0 a")


async def test_a_text_that_was_not_continued_is_a_failure() -> None:
    async with gateway(Continuing(num_answered=1)) as g:
        status, body, _ = await g.post("/score", CARD)
    assert status == 502
    assert "1 of 2" in body["error"]["message"]


async def test_a_sample_record_is_written_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "sample.json"

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, root, ["score", "sample", *arguments])

    async with gateway(Continuing()) as g:
        at = ("--url", g.url)
        sampling = ("--temperature", "0.5", "--top-p", "0.5")
        written = await run(*CARD["input_data"]["input_string"], *sampling, "--sku", "laptop", "-o", str(path), *at)
        assert written.exit_code == 0, written.output
        (record,) = json.loads(path.read_text())
        again = await run("--read", str(path), *at)
    assert record | {"endpoint_name": ""} == {
        "endpoint_name": "",
        "deployment_name": "default",
        "inference_payload": {
            "input_data": CARD["input_data"] | {"parameters": {"max_new_tokens": 25, "temperature": 0.5, "top_p": 0.5}}
        },
        "response": json.dumps(
            [{"0": "My name is John and I am 0 continuing"}, {"0": "Once upon a time, 1 continuing"}]
        ),
        "sku": "laptop",
        "status": "Completed",
    }
    assert again.exit_code == 0
    assert "1 of 1 answers are the recorded ones" in again.stderr


async def test_a_failed_request_and_a_file_without_records_are_said(tmp_path: Path) -> None:
    path = tmp_path / "no.json"
    path.write_text('[{"endpoint_name": "e"}]')
    runner = CliRunner()
    refused = runner.invoke(root, ["score", "sample", "--read", str(path)], standalone_mode=False)
    assert "holds no sample records" in str(refused.exception)
    async with gateway(scripted()) as g:
        failed = await asyncio.to_thread(
            runner.invoke, root, ["score", "sample", "a", "--url", g.url, "-m", "nobody"], standalone_mode=False
        )
    assert json.loads(failed.stdout)[0]["status"] == "Failed"
    assert "no model 'nobody'" in str(failed.exception)
