"""`chaku eval run` and `judge`: every call once, whatever happens; an unread text is neither a tie nor a zero."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from model_server import Model, ModelServer, last_message

from chaku.cli.main import root
from chaku.errors import ChakuError, UsageError
from chaku.evals.prices import Budget, BudgetReached
from chaku.evals.records import CallUsage, Judgement, Run, read_records
from chaku.policies import Price
from chaku_server import chaku_environment
from fake_openai import refusal
from processes import PATIENCE_S

SHARED = Path(__file__).parents[2] / "../shared/data/vicuna80"


def shouting(body: dict[str, Any]) -> str:
    return last_message(body).upper()


def whispering(body: dict[str, Any]) -> str:
    return f"{last_message(body).lower()} …"


def prefers_capitals(body: dict[str, Any]) -> str:
    first = re.search(r"<assistant_A>.*?### Assistant:\n(.*?)\n</assistant_A>", last_message(body), re.DOTALL)
    assert first
    return "So.\n[[A]]" if first[1].isupper() else "So.\n[[B]]"


MODELS: dict[str, Model] = {"loud": shouting, "quiet": whispering, "judge": prefers_capitals}


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer(dict(MODELS)).running() as running:
        yield running


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    path = tmp_path / "mine.csv"
    path.write_text("prompt,category\nHow are you,a\nWhere is it,a\nWhat next,b\n")
    return path


def evaluate(server: ModelServer, *arguments: object, fails: bool = False) -> Result:
    words = ["eval", *map(str, arguments), "--base-url", server.base_url]
    result = CliRunner().invoke(root, words, standalone_mode=False)
    if not fails:
        assert result.exception is None, result.output
    return result


BOTH = ("-m", "loud", "-m", "quiet", "--judge", "judge")


def test_answers_are_judged_in_both_orders_and_a_second_run_asks_nothing(
    server: ModelServer, suite: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    evaluate(server, "run", suite, *BOTH, "-o", folder)
    run = Run.load(folder)
    assert [len(run.questions), len(run.answers), len(run.judgements)] == [3, 6, 6]
    assert {judgement.models: judgement.winner for judgement in run.judgements} == {
        ("loud", "quiet"): "a",
        ("quiet", "loud"): "b",
    }
    assert (run.manifest.num_answers, run.manifest.num_judgements, run.manifest.judge) == (6, 6, "judge")
    assert [game.category for game in run.comparisons()].count("b") == 2
    again = evaluate(server, "run", suite, *BOTH, "-o", folder)
    assert "6 of 6" not in again.output, "there was nothing to count"
    assert set(server.asked.values()) == {1} and server.calls_to("judge") == 6


def test_contestants_have_settings_of_their_own_and_more_of_them_can_be_added(
    server: ModelServer, suite: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    pirate = "{name: pirate, model: loud, system: Arr., sampling: {temperature: 1.5}}"
    evaluate(server, "run", suite, "-m", "plain=loud", "-m", pirate, "--limit", "2", "-o", folder)
    bodies = [json.loads(body) for body in server.asked]
    assert {len(body["messages"]) for body in bodies if body["temperature"] == 1.5} == {2}
    assert {len(body["messages"]) for body in bodies if body["temperature"] == 0.7} == {1}
    assert [question.category for question in Run.load(folder).questions.values()] == ["a", "b"]
    evaluate(server, "run", suite, "-m", "quiet", "-o", folder)
    run = Run.load(folder)
    assert run.manifest.model_names == ("plain", "pirate", "quiet")
    assert len(run.answers) == 2 * 2 + 3
    changed = evaluate(server, "run", suite, "-m", "plain=quiet", "-o", folder, fails=True)
    assert isinstance(changed.exception, UsageError) and "had other settings" in str(changed.exception)


def test_the_judge_may_be_elsewhere_with_a_key_that_nobody_else_gets(
    server: ModelServer, suite: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ModelServer({"far": lambda body: "[[B]]"}).running() as other:
        at = ("-m", "loud", "-m", "quiet", "--judge", "far", "--judge-url", other.base_url, "-o", tmp_path / "run")
        evaluate(server, "run", suite, *at, "--judge-key", "secret", "--limit", "1")
        monkeypatch.setenv("OPENAI_API_KEY", "from-environment")
        evaluate(server, "run", suite, *at, "--api-key", "near", "--limit", "2")
        assert other.keys == {"Bearer secret": 2, "Bearer from-environment": 2}
    assert server.keys == {"": 2, "Bearer near": 2}
    lonely = evaluate(server, "run", suite, "-m", "loud", "--judge-url", "http://127.0.0.1:9/v1", fails=True)
    assert "without a judge" in str(lonely.exception)


@pytest.mark.parametrize(
    ("mode", "text", "num", "scores"),
    [("pair-score", "8 6.5\nWhy.", 6, (8.0, 6.5)), ("score", "Rating: [[7]]", 6, (7.0,))],
)
def test_scores_are_recorded(
    server: ModelServer, suite: Path, tmp_path: Path, mode: str, text: str, num: int, scores: tuple[float, ...]
) -> None:
    server.functions["judge"] = lambda body: text
    evaluate(server, "run", suite, *BOTH, "--mode", mode, "-o", tmp_path / "run")
    assert [judgement.scores for judgement in Run.load(tmp_path / "run").judgements] == [scores] * num


def test_what_can_not_be_read_is_counted_apart_and_reparse_needs_no_call(
    server: ModelServer, suite: Path, tmp_path: Path
) -> None:
    server.functions["judge"] = lambda body: "I like both."
    folder = tmp_path / "run"
    shown = evaluate(server, "run", suite, *BOTH, "-o", folder, "--json")
    counts = json.loads(shown.stdout)
    assert counts["judgements"] == {"planned": 6, "ok": 0, "unparsed": 6, "failed": 0}
    assert Run.load(folder).comparisons() == []
    num_calls = sum(server.asked.values())
    path = folder / "judgements.jsonl"
    path.write_text(path.read_text().replace("I like both.", "[[B]]"))  # as if the parser were a better one
    read = CliRunner().invoke(root, ["eval", "reparse", str(folder), "--json"], catch_exceptions=False)
    assert json.loads(read.stdout)["newly_read"] == 6
    assert {judgement.winner for judgement in Run.load(folder).judgements} == {"b"}
    assert sum(server.asked.values()) == num_calls


def test_one_failed_call_is_recorded_and_tried_again_later(server: ModelServer, suite: Path, tmp_path: Path) -> None:
    server.script.append(refusal(400, "this prompt is refused", code="content_filter"))
    folder = tmp_path / "run"
    evaluate(server, "run", suite, "-m", "loud", "-o", folder, "--parallel", "1")
    failed = [answer for answer in Run.load(folder).answers if answer.error]
    assert [(answer.turns, answer.error) for answer in failed] == [((), "this prompt is refused")]
    evaluate(server, "run", suite, "-m", "loud", "-o", folder)
    assert not any(answer.error for answer in Run.load(folder).answers)
    assert set(server.asked.values()) == {1}


def test_a_limit_of_calls_is_waited_for_and_calls_at_once_are_bounded(
    server: ModelServer, suite: Path, tmp_path: Path
) -> None:
    server.delay_s = 0.02
    server.script.extend(refusal(429, "slow down", headers={"Retry-After": "0"}) for _ in range(4))
    evaluate(server, "run", suite, *BOTH, "-o", tmp_path / "run", "--parallel", "3")
    run = Run.load(tmp_path / "run")
    assert not any(answer.error for answer in run.answers) and len(run.comparisons()) == 6
    assert 2 <= server.most_running <= 3


def test_a_server_that_knows_no_such_model_ends_the_run_and_keeps_what_came(
    server: ModelServer, suite: Path, tmp_path: Path
) -> None:
    evaluate(server, "run", suite, "-m", "loud", "-o", tmp_path / "run")
    server.script.extend(refusal(404, "no model quiet", code="model_not_found") for _ in range(9))
    ended = evaluate(server, "run", suite, "-m", "loud", "-m", "quiet", "-o", tmp_path / "run", fails=True)
    assert isinstance(ended.exception, ChakuError) and "no model quiet" in str(ended.exception)
    assert len(Run.load(tmp_path / "run").answers) == 3


def test_a_dry_run_counts_calls_tokens_and_dollars_and_sends_nothing(
    server: ModelServer, suite: Path, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("loud: {prompt: 1, completion: 10}\njudge: {prompt: 2, completion: 8}\n")
    options = (*BOTH, "-o", tmp_path / "run", "--prices", prices, "--dry-run")
    rows = {
        row["model"]: row for row in json.loads(evaluate(server, "run", suite, *options, "--json").stdout)["models"]
    }
    assert {model: row["calls"] for model, row in rows.items()} == {"loud": 3, "quiet": 3, "judge": 6}
    assert rows["loud"]["most_completion_tokens"] == 3 * 1024
    assert rows["loud"]["most_dollars"] == pytest.approx((rows["loud"]["prompt_tokens"] + 30720) / 1e6, abs=1e-4)
    assert rows["quiet"]["most_dollars"] is None
    assert "no price" in evaluate(server, "run", suite, *options).stdout
    assert not server.asked and not (tmp_path / "run").exists()


def test_a_contestant_that_comes_later_meets_those_who_were_there_and_only_new_calls_are_counted(
    server: ModelServer, suite: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    evaluate(server, "run", suite, *BOTH, "-o", folder)
    server.functions["third"] = lambda body: "Third"
    options = ("-m", "third", "--judge", "judge", "-o", folder)
    planned = json.loads(evaluate(server, "run", suite, *options, "--dry-run", "--json").stdout)
    assert {row["model"]: row["calls"] for row in planned["models"]} == {"third": 3, "judge": 12}
    num_calls = sum(server.asked.values())
    counts = json.loads(evaluate(server, "run", suite, *options, "--json").stdout)
    assert sum(server.asked.values()) - num_calls == planned["calls"] == 15
    assert counts["answers"] == {"planned": 9, "ok": 9, "failed": 0}
    assert counts["judgements"]["planned"] == counts["judgements"]["ok"] == 18


@given(st.lists(st.tuples(st.integers(0, 400), st.booleans()), max_size=30), st.floats(0.001, 0.05))
def test_calls_under_way_and_calls_that_broke_off_count_against_the_budget(
    calls: list[tuple[int, bool]], limit: float
) -> None:
    price = Price(prompt=1.0, completion=20.0)
    budget = Budget(limit, {"m": price})
    message = [{"role": "user", "content": "é漢🦙"}]
    paid, running = 0.0, []
    for tokens, ends_now in calls:
        try:
            running.append((budget.reserve("m", message, 400), tokens))
        except BudgetReached:
            continue
        if ends_now:
            reserved, used = running.pop()
            usage = CallUsage(dollars=reserved) if used == 0 else CallUsage(prompt_tokens=9, completion_tokens=used)
            paid += budget.settle("m", reserved, usage).dollars or 0.0
        assert paid + sum(reserved for reserved, _ in running) <= limit + 1e-12
    assert budget.spent == pytest.approx(paid)


def test_a_budget_is_never_passed_and_the_run_is_resumed_with_a_larger_one(
    server: ModelServer, suite: Path, tmp_path: Path
) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text("loud: {prompt: 0, completion: 1000}\n")
    # A call may cost 10 tokens = $0.01, and costs 3 = $0.003: the third one could pass $0.015.
    options = ("-m", "loud", "-o", tmp_path / "run", "--max-tokens", "10", "--prices", prices, "--parallel", "1")
    reached = evaluate(server, "run", suite, *options, "--budget", "0.015", fails=True)
    assert "the next call may cost $0.0100" in str(reached.exception)
    run = Run.load(tmp_path / "run")
    assert len(run.answers) == 2 and run.dollars == pytest.approx(0.006)
    again = evaluate(server, "run", suite, *options, "--budget", "0.015", fails=True)
    assert isinstance(again.exception, ChakuError), "what earlier commands spent counts"
    evaluate(server, "run", suite, *options, "--budget", "0.05")
    assert len(Run.load(tmp_path / "run").answers) == 3
    assert set(server.asked.values()) == {1}
    unpriced = evaluate(server, "run", suite, "-m", "quiet", "--budget", "1", "--dry-run", fails=True)
    assert "no price for quiet" in str(unpriced.exception)


def test_a_run_that_is_killed_is_resumed_and_no_recorded_call_is_made_twice(tmp_path: Path) -> None:
    suite = tmp_path / "many.csv"
    suite.write_text("prompt\n" + "".join(f"question number {number}\n" for number in range(30)))
    folder = tmp_path / "run"
    with ModelServer(dict(MODELS), delay_s=0.01).running() as server:
        words = ["eval", "run", str(suite), *BOTH, "-o", str(folder), "--parallel", "2", "--base-url", server.base_url]
        recorded: list[set[str]] = []
        for name, at_least in (("answers.jsonl", 10), ("judgements.jsonl", 10)):
            process = subprocess.Popen(
                [sys.executable, "-m", "chaku", *words],
                env=chaku_environment(tmp_path),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            try:
                deadline = time.monotonic() + PATIENCE_S
                while not (folder / name).exists() or (folder / name).read_bytes().count(b"\n") < at_least:
                    assert time.monotonic() < deadline and process.poll() is None
                    time.sleep(0.005)
            finally:
                process.send_signal(signal.SIGKILL)
                process.wait(PATIENCE_S)
            run = Run.load(folder)
            recorded.append({record.key for record in (*run.answers, *run.judgements)})
        evaluate(server, *words[1:-2])
        in_flight = 2 * 2  # two kills, with at most two calls under way at each
        assert sum(server.asked.values()) <= 60 + 60 + in_flight
        repeated = [json.loads(body) for body, count in server.asked.items() if count > 1]
        assert len(repeated) <= in_flight
    run = Run.load(folder)
    keys = [record.key for record in (*run.answers, *run.judgements)]
    lines = (folder / "answers.jsonl").read_bytes() + (folder / "judgements.jsonl").read_bytes()
    assert len(keys) == len(set(keys)) == lines.count(b"\n") == 120
    assert all(earlier <= set(keys) for earlier in recorded)


def test_chaku_80_is_checked_by_program_without_a_judge_and_code_only_where_allowed(
    server: ModelServer, tmp_path: Path
) -> None:
    server.functions["loud"] = lambda body: "Answer: 41\n```python\nprint(1)\n```"
    options = ("chaku-80", "-m", "loud", "--category", "math", "--category", "coding", "-o", tmp_path / "run", "--json")
    counts = json.loads(evaluate(server, "run", *options).stdout)
    assert counts["unchecked"] == 10
    assert counts["judgements"] == {"planned": 0, "ok": 0, "unparsed": 0, "failed": 0}
    assert counts["checks"] == {"passed": 1, "not passed": 9}
    checks = [one for one in Run.load(tmp_path / "run").judgements if one.mode == "check"]
    assert {one.question_id: one.scores for one in checks if one.scores == (1.0,)} == {"math-6": (1.0,)}
    assert json.loads(evaluate(server, "run", *options, "--allow-code").stdout)["unchecked"] == 0
    assert len(Run.load(tmp_path / "run").judgements) == 20
    assert server.calls_to("loud") == 20


def test_a_run_is_judged_again_by_another_judge_without_new_answers(
    server: ModelServer, suite: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    evaluate(server, "run", suite, *BOTH, "-o", folder)
    num_answers = server.calls_to("loud")
    server.functions["second"] = lambda body: "[[tie]]"
    evaluate(server, "judge", folder, "--judge", "second")
    judgements = read_records(folder / "judgements.jsonl", Judgement)
    assert [one.judge for one in judgements].count("second") == 6 and len(judgements) == 12
    assert server.calls_to("loud") == num_answers


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data/vicuna80 is not here")
def test_a_judge_that_replays_the_recorded_reviews_gives_the_parsed_totals(tmp_path: Path) -> None:
    from chaku.evals.fastchat import read_old_files
    from chaku.evals.pairs import pairs_of

    names = ("llama-13b", "alpaca-13b", "bard", "gpt35", "vicuna-13b")
    old = read_old_files(sorted((SHARED / "review").glob("*.jsonl")))
    texts = {(answer.question_id, answer.model): answer.turns[0] for answer in old.answers}
    recorded = {
        (texts[review.question_id, review.models[0]], texts[review.question_id, review.models[1]]): review
        for review in old.judgements
    }
    shape = re.compile(
        r"Assistant 1's Answer\]\n(.*)\n\n\[The End of Assistant 1's .*?Assistant 2's Answer\]\n(.*)\n\n\[The End of A",
        re.DOTALL,
    )

    def replay(body: dict[str, Any]) -> str:
        answers = shape.search(last_message(body))
        assert answers
        return recorded[answers[1], answers[2]].text

    files = [SHARED / f"answer/answer_{name}.jsonl" for name in names]
    with ModelServer({"gpt-4": replay}).running() as server:
        options = ("--mode", "pair-score", "--orders", "given", "--prompts", SHARED / "prompt.jsonl")
        evaluate(
            server, "judge", *files, *options, "--judge", "gpt-4", "--baseline", "vicuna-13b", "-o", tmp_path / "run",
        )  # fmt: skip
    run = Run.load(tmp_path / "run")
    totals = {
        pair.model_a: (float(pair.values_a.sum()), float(pair.values_b.sum())) for pair in pairs_of(run.judgements)
    }
    assert totals == {
        "llama-13b": (513.0, 696.0),
        "alpaca-13b": (583.0, 704.0),
        "bard": (664.0, 657.5),
        "gpt35": (693.0, 638.0),
    }
    as_recorded = {(review.question_id, review.models): review.scores for review in old.judgements}
    differing = sorted(
        (one.question_id, one.models[0])
        for one in run.judgements
        if one.scores != as_recorded[one.question_id, one.models]
    )
    assert len(run.judgements) == 320 and differing == [("70", "bard"), ("70", "llama-13b")]
