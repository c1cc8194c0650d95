"""`chaku eval compare`: runs of ours, logs of inspect and lm-eval, conditions for CI, one leaderboard for all."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from chaku.arena.board import rate
from chaku.cli.arena import rate_games
from chaku.cli.eval.compare_runs import compare_runs
from chaku.comparison import Comparison, write_comparisons
from chaku.errors import ChakuError, UsageError
from chaku.evals.comparing import Compared, compare, parse_condition
from chaku.evals.measured import Source, matches
from chaku.evals.records import ContestantAnswer, Judgement, Manifest, Question, Run, write_records, write_run
from chaku.settings import Contestant
from evals.made_runs import make_verdict_run


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(compare_runs, [str(argument) for argument in arguments])


def compared(*arguments: object) -> list[dict[str, Any]]:
    result = invoke(*arguments, "--json")
    assert result.exception is None, result.output
    found: list[dict[str, Any]] = json.loads(result.stdout)["comparisons"]
    return found


def judged(model: str, question: str, score: float, **values: Any) -> Judgement:
    settings = {"mode": "score", "judge": "j", "scores": (score,), **values}
    return Judgement(key=f"{model} {question} {values}", question_id=question, models=(model,), **settings)


def make_run(folder: Path, judgements: list[Judgement], answers: list[ContestantAnswer] | None = None) -> Path:
    models = dict.fromkeys(name for one in judgements for name in one.models)
    asked = dict.fromkeys(one.question_id for one in judgements)
    folder.mkdir(parents=True)
    contestants = tuple(Contestant(name=f"c{at}", model=name[:1]) for at, name in enumerate(models))
    manifest = Manifest(suite="s", created="2026-01-01", contestants=contestants)
    write_run(folder, manifest, [Question(id=each, turns=("?",), category=f"c{int(each) % 4}") for each in asked])
    write_records(folder / "judgements.jsonl", judgements)
    write_records(folder / "answers.jsonl", answers or [])
    return folder


@pytest.fixture
def two_runs(tmp_path: Path) -> tuple[Path, Path]:
    random = np.random.default_rng(0)
    base = [judged("base", str(number), 5 + float(random.normal())) for number in range(50)]
    tuned = [judged("tuned", one.question_id, one.scores[0] - 0.5 + float(random.normal())) for one in base]
    return make_run(tmp_path / "base", base), make_run(tmp_path / "tuned", tuned)


def test_two_runs_are_compared_question_by_question(two_runs: tuple[Path, Path]) -> None:
    [found] = compared(*two_runs)
    assert (found["model_a"], found["model_b"], found["questions"], found["test"]) == ("base", "tuned", 50, "t")
    assert found["verdict"] == "worse"
    assert found["low"] < found["difference"] < found["high"] < 0
    assert found["detectable"] < 0.6
    [turned] = compared(*reversed(two_runs))
    assert turned["difference"] == pytest.approx(-found["difference"])
    assert turned["verdict"] == "better"


def test_a_condition_that_holds_ends_with_1_and_fails_a_junit_test(two_runs: tuple[Path, Path], tmp_path: Path) -> None:
    result = invoke(*two_runs, "--fail-if", "worse,p<0.05", "--junit", tmp_path / "j.xml")
    assert isinstance(result.exception, ChakuError)
    assert result.exception.exit_code == 1
    suite = ElementTree.parse(tmp_path / "j.xml").getroot()
    assert (suite.get("tests"), suite.get("failures")) == ("1", "1")
    assert "tuned is worse than base." in (suite.findtext("testcase/failure") or "")
    result = invoke(*two_runs, "--fail-if", "better", "--fail-if", "difference<-5", "--junit", tmp_path / "j.xml")
    assert result.exit_code == 0
    assert ElementTree.parse(tmp_path / "j.xml").getroot().get("failures") == "0"


def test_a_models_name_can_hold_anything_and_the_xml_stays_whole(tmp_path: Path) -> None:
    name = "a<b>&\x00\x1b\ufffe'\""
    run = make_run(tmp_path / "r", [judged(each, str(n), n % 3) for each in (name, "y") for n in range(5)])
    assert invoke(run, "--junit", tmp_path / "j.xml").exit_code == 0
    assert "y against a<b>&???" in (ElementTree.parse(tmp_path / "j.xml").getroot()[0].get("name") or "")


@pytest.mark.parametrize("text", ["worse,p<", "bad", "", ",", "p<0.05;worse", "p=0.05"])
def test_a_condition_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="condition"):
        parse_condition(text)


def test_few_questions_get_a_permutation_test(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", [judged(m, str(n), n + (m == "y")) for m in "xy" for n in range(6)])
    [found] = compared(run)
    assert (found["test"], found["p"]) == ("permutation", 2 / 2**6)  # all six differences have one sign


def test_many_pairs_are_adjusted_together(tmp_path: Path) -> None:
    random = np.random.default_rng(7)
    rows = [judged(f"m{m}", str(n), float(random.normal())) for m in range(6) for n in range(40)]
    found = compared(make_run(tmp_path / "r", rows))
    assert len(found) == 15
    assert min(one["p_adjusted"] for one in found) == min(1, 15 * min(one["p"] for one in found))
    assert any(one["p"] < 0.05 for one in found)  # alone it would be a false alarm
    assert not [one for one in found if one["verdict"] != "no difference found"]


def test_questions_of_one_cluster_do_not_count_as_independent(two_runs: tuple[Path, Path]) -> None:
    [by_question], [by_category] = compared(*two_runs), compared(*two_runs, "--cluster", "category")
    assert by_category["difference"] == by_question["difference"]
    assert (by_category["clusters"], by_category["test"]) == (4, "permutation")


def test_what_was_not_read_is_counted_and_neither_a_tie_nor_a_zero(tmp_path: Path) -> None:
    rows = [judged(model, str(n), 5 + (model == "y") + n % 2) for model in "xy" for n in range(8)]
    rows[3] = judged("x", "3", 0, scores=(), state="unparsed")
    [found] = compared(make_run(tmp_path / "r", rows))
    assert (found["questions"], found["difference"], found["unread"], found["only_b"]) == (7, 1.0, 1, 1)


def test_a_judgement_of_both_that_was_not_read_is_counted_once(tmp_path: Path) -> None:
    [found] = compared(make_verdict_run(tmp_path / "r"))
    assert (found["questions"], found["unread"]) == (11, 2)  # both orders of one question


def test_different_judges_are_not_compared(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / m, [judged(m, str(n), n, judge=f"judge {m}") for n in range(4)]) for m in "xy"]
    result = invoke(*runs)
    assert isinstance(result.exception, UsageError)
    assert "judged by judge x" in str(result.exception)


def test_the_same_model_in_two_runs_is_told_apart_by_the_run(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / r, [judged("m", str(n), n % 3) for n in range(9)]) for r in ("before", "after")]
    [found] = compared(*runs)
    assert (found["model_a"], found["model_b"], found["difference"]) == ("m (before)", "m (after)", 0.0)
    assert found["needed"] is None


def test_runs_without_a_common_question_or_metric_are_refused(tmp_path: Path) -> None:
    x = make_run(tmp_path / "x", [judged("x", str(n), n) for n in range(3)])
    y = make_run(tmp_path / "y", [judged("y", str(n), n) for n in range(10, 13)])
    z = make_run(tmp_path / "z", [judged("z", str(n), n, mode="check") for n in range(3)])
    assert "no question in common" in str(invoke(x, y).exception)
    assert "no metric in common" in str(invoke(x, z).exception)
    assert "no two models" in str(invoke(x).exception)


def verdicts(num: int = 40) -> list[Judgement]:
    """y wins three of four, in both orders."""
    rows = []
    for number in range(num):
        for models in (("x", "y"), ("y", "x")):
            best = "x" if number % 4 == 0 else "y"
            winner = "ab"[models.index(best)]
            rows.append(
                Judgement(
                    key=f"{number} {models}", question_id=str(number), mode="verdict", judge="j", models=models,
                    winner=winner,  # type: ignore[arg-type]
                )
            )  # fmt: skip
    return rows


def test_verdicts_of_both_orders_are_one_question_each(tmp_path: Path) -> None:
    [found] = compared(make_run(tmp_path / "r", verdicts()))
    assert (found["questions"], found["wins_a"], found["wins_b"]) == (40, 10, 30)
    assert (found["difference"], found["win_rate"]["value"], found["total_a"]) == (0.5, 0.75, None)


def test_the_win_rate_is_told_at_equal_lengths_and_as_people_would_see_it(tmp_path: Path) -> None:
    answers = [
        ContestantAnswer(
            key=f"{m}{n}", question_id=str(n), model=m, turns=("word " * (10 + (n * (7 if m == "x" else 11)) % 30),)
        )
        for m in "xy"
        for n in range(40)
    ]
    folder = make_run(tmp_path / "r", verdicts(), answers)
    labels = [
        Comparison(source="human", model_a="x", model_b="y", outcome="a", prompt_id=str(n), voter="p")
        for n in range(20)
    ]
    write_comparisons(folder / "labels.jsonl", labels)
    [found] = compared(folder)
    assert found["labels"] == 20
    assert found["win_rate_by_people"]["value"] < 0.2  # people preferred x each time
    assert found["win_rate_at_equal_lengths"] is not None


def inspect_log(path: Path, model: str, right: list[str]) -> Path:
    samples = [
        {"id": n, "epoch": epoch, "input": "?", "target": "4", "output": {"completion": "4"},
         "scores": {"match": {"value": value}}}
        for n, value in enumerate(right, 1) for epoch in (1, 2)
    ]  # fmt: skip
    path.write_text(json.dumps({"version": 2, "eval": {"task": "t", "model": model}, "samples": samples}))
    return path


def test_logs_of_inspect_are_compared_over_epochs(tmp_path: Path) -> None:
    a = inspect_log(tmp_path / "a.json", "openai/a", ["C", "I", "C", "I", "C", "I", "P", "I"])
    b = inspect_log(tmp_path / "b.json", "openai/b", ["C", "C", "C", "C", "C", "C", "P", "C"])
    [found] = compared(a, b)
    assert (found["metric"], found["questions"], found["difference"]) == ("match", 8, 0.5)
    assert (found["test"], found["p"]) == ("permutation", 0.125)


def lm_eval_log(folder: Path, task: str, right: list[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"doc_id": n, "doc": {}, "target": "x", "arguments": [["?", " x"]], "resps": [[["-1.0", "True"]]],
         "filtered_resps": [], "filter": "none", "metrics": ["acc"], "doc_hash": str(n), "acc": float(value)}
        for n, value in enumerate(right)
    ]  # fmt: skip
    path = folder / f"samples_{task}_2026-01-01T00-00-00.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_logs_of_lm_eval_are_paired_by_task_and_document(tmp_path: Path) -> None:
    for task in ("arc", "boolq"):
        lm_eval_log(tmp_path / "base", task, [1, 0, 1, 0] * 10)
        lm_eval_log(tmp_path / "tuned", task, [1, 1, 1, 0] * 10)
    [found] = compared(tmp_path / "base", tmp_path / "tuned")
    assert (found["model_a"], found["metric"], found["questions"]) == ("base", "acc", 80)
    assert (found["difference"], found["verdict"]) == (0.25, "better")
    [by_task] = compared(tmp_path / "base", tmp_path / "tuned", "--cluster", "category")
    assert by_task["clusters"] == 2


def test_a_file_that_is_no_run_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("what?")
    assert "x.txt is no run" in str(invoke(tmp_path / "x.txt").exception)


def test_verdicts_and_votes_stand_on_one_leaderboard(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "r", verdicts())
    votes = [
        Comparison(source="human", model_a="y", model_b="z", outcome="ab"[n % 2], voter=f"v{n}")  # type: ignore[arg-type]
        for n in range(30)
    ]
    write_comparisons(tmp_path / "votes.jsonl", votes)
    result = CliRunner().invoke(rate_games, [str(folder), str(tmp_path / "votes.jsonl"), "--json"])
    assert result.exception is None, result.output
    rated = json.loads(result.stdout)["models"]
    assert set(rated) == {"x", "y", "z"}
    ours = rate([*Run.load(folder).comparisons(), *votes])
    assert {row.name: row.rating for row in ours.rows} == pytest.approx(
        {name: row["rating"] for name, row in rated.items()}, abs=0.01
    )


@settings(max_examples=20)
@given(st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), min_size=2, max_size=40), st.randoms())
def test_order_of_questions_means_nothing_and_turning_a_pair_turns_the_sign(
    rows: list[tuple[float, float]], random: Any
) -> None:
    def result(rows: list[tuple[int, tuple[float, float]]], names: str = "xy") -> Compared:
        judgements = [judged(names[at], str(n), values[at]) for n, values in rows for at in (0, 1)]
        [one] = compare(matches([Source("s", {}, [], judgements)], models=sorted(names)))
        return one

    numbered = list(enumerate(rows))
    first = result(numbered)
    random.shuffle(numbered)
    again, turned = result(numbered), result(numbered, "yx")
    assert again.difference.value == pytest.approx(first.difference.value, abs=1e-9)
    assert again.difference.error == pytest.approx(first.difference.error, abs=1e-9)
    assert turned.difference.value == pytest.approx(-first.difference.value, abs=1e-9)
    assert math.isclose(turned.win_rate.value, 1 - first.win_rate.value, abs_tol=1e-9)
