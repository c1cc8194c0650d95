"""`chaku eval` with the real model as contestant and as judge."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from chaku.evals.records import Run
from chaku_server import ChakuServer, run_chaku

pytestmark = pytest.mark.model
MODEL = "smollm2-135m"


@pytest.mark.needs("response_format")
def test_the_real_model_answers_and_judges_four_questions(served: ChakuServer, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    hot = f"{{name: hot, model: {MODEL}, sampling: {{temperature: 1.5}}}}"
    words = ("eval", "run", "chaku-80", "--limit", "4", "-m", MODEL, "-m", hot, "--judge", MODEL, "-o", str(folder))
    short = ("--max-tokens", "8", "--judge-tokens", "24", "--orders", "given", "--base-url", served.base_url, "--json")
    done = run_chaku(tmp_path, *words, *short)
    assert done.returncode == 0, done.stderr
    run = Run.load(folder)
    assert len({question.category for question in run.questions.values()}) == 4
    assert [len(run.answers), len(run.judgements)] == [8, 4]
    assert all(answer.turns[0] and answer.usage.completion_tokens for answer in run.answers)
    assert {judgement.state for judgement in run.judgements} <= {"ok", "unparsed"}
    assert all(judgement.text.lstrip().startswith("{") for judgement in run.judgements), "the server declares JSON"
    report = tmp_path / "report.html"
    written = run_chaku(tmp_path, "eval", "report", str(folder), "-o", str(report))
    assert written.returncode == 0, written.stderr
    assert run.questions["writing-1"].turns[0].split(".")[0] in report.read_text()


@pytest.mark.prove
@pytest.mark.timeout(1800)  # 84 judgements of the real model
def test_a_check_of_the_real_model_says_why_it_is_not_fit_as_a_judge(served: ChakuServer, tmp_path: Path) -> None:
    words = ("eval", "judge-check", MODEL, "--items", "12", "--judge-tokens", "96", "-o", str(tmp_path / "check"))
    done = run_chaku(tmp_path, *words, "--base-url", served.base_url, "--json")
    assert done.returncode == 0, done.stderr
    diagnosis = json.loads(done.stdout)
    assert diagnosis["fitness"] == "not fit"
    assert any(finding["is_fault"] for finding in diagnosis["findings"]) and diagnosis["reasons"]
