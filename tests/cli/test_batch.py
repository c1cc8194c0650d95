"""`chaku batch run`: every request is answered once, whatever happens to the run."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chaku.batch import Pacer, open_answers, read_requests
from chaku.cli.main import root
from chaku.engines.scripted import Reply
from chaku.errors import UsageError
from chaku_server import chaku_environment
from gateways import gateway, scripted
from processes import PATIENCE_S


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


async def run(*arguments: str) -> Any:
    return await asyncio.to_thread(CliRunner().invoke, root, ["batch", "run", *arguments], standalone_mode=False)


async def test_requests_begin_apart_however_many_run_at_once() -> None:
    now, begun = 0.0, []

    async def sleep(seconds: float) -> None:
        begun.append(now + seconds)

    pacer = Pacer(30, clock=lambda: now, sleep=sleep)
    for _ in range(4):
        await pacer.wait()
    assert begun == [2.0, 4.0, 6.0]  # the first one begins at once
    now = 100.0
    await pacer.wait()
    await pacer.wait()
    assert begun[3:] == [102.0]  # an idle time is not made up for
    unlimited = Pacer(None, clock=lambda: now, sleep=sleep)
    for _ in range(3):
        await unlimited.wait()
    assert len(begun) == 4


async def test_the_cost_of_a_run_is_shown_at_the_prices_that_were_given(tmp_path: Path) -> None:
    requests = write(tmp_path / "in.jsonl", *({"prompt": text} for text in ("one", "two")))
    out = tmp_path / "out.jsonl"
    async with gateway() as g:
        at = (str(requests), "-o", str(out), "-m", "scripted", "--base-url", f"{g.url}/v1")
        result = await run(*at, "--price", "scripted=1000000/2000000", "--requests-per-minute", "60000")
        wrong = await run(*at, "--price", "scripted")
    usage = [line["response"]["body"]["usage"] for line in lines_of(out)]
    cached = sum((row.get("prompt_tokens_details") or {}).get("cached_tokens", 0) for row in usage)
    assert cached == 0
    dollars = sum(row["prompt_tokens"] + 2 * row["completion_tokens"] for row in usage)
    assert f"{dollars:,.4f} dollars" in result.stderr.splitlines()[-1]
    assert "--price" in str(wrong.exception)


async def test_lines_of_every_form_are_answered_and_refusals_are_recorded(tmp_path: Path) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "three"}]}
    requests = write(
        tmp_path / "in.jsonl",
        {"prompt": "one", "max_tokens": 50},
        {"messages": [{"role": "user", "content": "two"}]},
        {"custom_id": "c", "method": "POST", "url": "/v1/chat/completions", "body": body},
        {"custom_id": "d", "prompt": "four", "temprature": 1},
    )
    out = tmp_path / "out.jsonl"
    async with gateway() as g:
        at = (str(requests), "-o", str(out), "-m", "scripted", "--base-url", f"{g.url}/v1")
        first = await run(*at)
        again = await run(*at)
        num_sent = len(g.exchanges)
    assert "1 of 4 requests were refused" in str(first.exception)
    assert "4 of 4 answers are recorded" in again.stderr
    assert num_sent == 3  # the refused one never reached a model
    by_id = {line["custom_id"]: line for line in lines_of(out)}
    texts = {
        name: line["response"]["body"]["choices"][0]["message"]["content"]
        for name, line in by_id.items()
        if line["response"]["status_code"] == 200
    }
    assert texts == {"line-1": "You said: one", "line-2": "You said: two", "c": "You said: three"}
    assert by_id["d"]["response"]["status_code"] == 400
    assert by_id["d"]["response"]["body"]["error"]["param"] == "temprature"
    assert {line["error"] for line in by_id.values()} == {None}  # as OpenAI's: a refusal by HTTP is a response


async def test_a_run_that_is_killed_is_resumed_and_no_recorded_request_is_sent_again(tmp_path: Path) -> None:
    requests = write(tmp_path / "in.jsonl", *({"prompt": f"number {n}"} for n in range(60)))
    out = tmp_path / "out.jsonl"
    async with gateway(scripted(Reply(text="You said: {prompt}", delay_s=0.02))) as g:
        at = (str(requests), "-o", str(out), "-m", "scripted", "--base-url", f"{g.url}/v1", "--parallel", "2")
        process = subprocess.Popen(
            [sys.executable, "-m", "chaku", "batch", "run", *at],
            env=chaku_environment(tmp_path),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            deadline = time.monotonic() + PATIENCE_S
            while not (out.exists() and out.read_bytes().count(b"\n") >= 5):
                assert process.poll() is None and time.monotonic() < deadline
                await asyncio.sleep(0.02)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
        recorded = out.read_bytes().count(b"\n")
        with out.open("ab") as file:
            file.write(b'{"id": "batch_req_torn", "cus')  # what a kill in the middle of a write leaves
        already_sent = len(g.exchanges)
        resumed = await run(*at)
        assert resumed.exception is None, resumed.output
        in_second_run = len(g.exchanges) - already_sent
    assert 5 <= recorded < 60
    assert (
        60 - recorded <= in_second_run <= 60 - recorded + 2
    )  # two may have been in flight, and are accounted for late
    answers = lines_of(out)
    assert len(answers) == 60
    assert {a["response"]["body"]["choices"][0]["message"]["content"] for a in answers} == {
        f"You said: number {n}" for n in range(60)
    }


async def test_a_server_that_is_away_records_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from chaku import batch
    from chaku.http_out import Retries

    monkeypatch.setattr(batch, "RETRIES", Retries(limit=0))
    requests = write(tmp_path / "in.jsonl", {"prompt": "one"})
    out = tmp_path / "out.jsonl"
    done = await run(str(requests), "-o", str(out), "-m", "m", "--base-url", "http://127.0.0.1:9/v1")
    assert done.exception is not None
    assert out.read_bytes() == b""


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (
            [{"prompt": "a", "custom_id": "x"}, {"prompt": "b", "custom_id": "x"}],
            "in.jsonl:2: custom_id 'x' is there twice",
        ),
        ([{"text": "a"}], "in.jsonl:1: the line has no body, messages or prompt"),
        ([{"prompt": "a", "stream": True}], "does not stream"),
        ([{"custom_id": "x", "url": "/v1/files", "body": {}}], "POST /v1/files"),
        ([{"custom_id": "x", "url": "/v1/completions", "body": {"model": "m"}, "extra": 1}], "unknown field 'extra'"),
        ([], "holds no requests"),
    ],
)
def test_a_file_with_a_mistake_is_refused_with_its_line(tmp_path: Path, rows: list[dict[str, Any]], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_requests(write(tmp_path / "in.jsonl", *rows), "m")
    assert says in str(caught.value)


def test_a_request_without_a_model_a_changed_one_and_a_second_run_are_refused(tmp_path: Path) -> None:
    path, out = write(tmp_path / "in.jsonl", {"prompt": "a"}), tmp_path / "out.jsonl"
    with pytest.raises(UsageError, match="names no model"):
        read_requests(path, None)
    (request,) = read_requests(path, "m")
    with open_answers(out) as answers:
        answers.add({"id": request.id, "custom_id": request.custom_id})
        with pytest.raises(UsageError, match="another run writes"), open_answers(out):
            pass
    with open_answers(out) as answers:
        assert answers.missing([request]) == []
        with pytest.raises(UsageError, match="was changed"):
            answers.missing(read_requests(write(path, {"prompt": "b"}), "m"))
    out.write_text("notes\n")
    with pytest.raises(UsageError, match=r"out.jsonl:1 is no answer"), open_answers(out):
        pass
