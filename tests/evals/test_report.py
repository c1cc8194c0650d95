"""`chaku eval report`: what it computes, and the file as a browser shows it from a disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chaku.cli.eval.report import report
from chaku.errors import UsageError
from chaku.evals.deciding import deciding_sentence
from chaku.evals.health import health_of
from chaku.evals.records import Run
from chaku.evals.summary import summary
from chaku.web.standalone import standalone
from evals.made_runs import make_verdict_run, verdict


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_verdict_run(tmp_path_factory.mktemp("evals") / "now")


@pytest.fixture(scope="module")
def content(run_folder: Path) -> dict[str, Any]:
    return summary(Run.load(run_folder))


def test_scores_wins_and_costs_come_from_the_records(content: dict[str, Any]) -> None:
    [pair] = content["pairs"]
    # Of 12 questions one is not read, one is a change of mind; of the others every fourth is won by base.
    assert (pair["wins_a"], pair["ties"], pair["wins_b"]) == (3, 1, 7)
    [scores] = content["scores"]
    tuned = next(one for one in scores["models"] if one["model"] == "tuned")
    assert tuned["all"]["value"] == pytest.approx(7.5 / 11)
    assert set(tuned["categories"]) == {"kind 0", "kind 1", "kind 2"}
    assert tuned["all"]["low"] < 7.5 / 11 < tuned["all"]["high"]
    judging = next(row for row in content["cost"] if row["what"] == "judgements")
    assert (judging["num"], judging["prompt_tokens"], round(judging["dollars"], 6)) == (24, 2400, 0.024)
    assert content["matrix"]["values"][1][0] == pytest.approx(7.5 / 11)


def test_the_judges_health_is_told_from_both_orders(content: dict[str, Any]) -> None:
    health = content["health"]
    assert (health["unread"]["count"], health["unread"]["num"]) == (2, 24)
    assert (health["flips"]["count"], health["flips"]["num"]) == (1, 11)
    assert (health["first"]["count"], health["first"]["num"]) == (12, 22)
    assert content["questions"][0]["flipped"] == [["base", "tuned"]]


def test_one_order_alone_says_nothing_about_the_place() -> None:
    health = health_of([verdict(at, ("x", "y"), "a") for at in range(30)])
    assert (health.first.num, health.flips.num, health.first_p) == (0, 0, 1.0)


def test_questions_that_another_runs_judge_decided_otherwise_are_marked(run_folder: Path, tmp_path: Path) -> None:
    other = make_verdict_run(tmp_path / "other", turned=True)
    found = summary(Run.load(run_folder), Run.load(other))
    assert found["against"] == "other"
    assert [question["id"] for question in found["questions"] if question["differs"]] == [str(n) for n in range(2, 12)]


def test_a_run_without_any_judgement_is_shown(tmp_path: Path) -> None:
    folder = make_verdict_run(tmp_path / "new")
    (folder / "judgements.jsonl").unlink()
    found = summary(Run.load(folder))
    assert (found["pairs"], found["scores"], found["health"], found["is_done"]) == ([], [], None, False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "9 8\nBoth help. However, Assistant 1 is slightly better. Both end well.",
            "However, Assistant 1 is slightly better.",
        ),
        ("It scores 3.5 of 10 and is worse than the other", "It scores 3.5 of 10 and is worse than the other"),
        ("Fine.", None),
        ("", None),
    ],
)
def test_the_deciding_sentence_is_the_one_that_compares_most(text: str, sentence: str | None) -> None:
    place = deciding_sentence(text)
    assert (text[slice(*place)] if place else None) == sentence


def test_a_page_without_the_libraries_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="libraries are not installed"):
        standalone("t", "evals/standalone.js", [], {}, folder=tmp_path)


def test_the_report_as_json_is_what_the_page_holds(run_folder: Path, content: dict[str, Any]) -> None:
    result = CliRunner().invoke(report, [str(run_folder), "--json"])
    assert json.loads(result.stdout) == json.loads(json.dumps(content))
