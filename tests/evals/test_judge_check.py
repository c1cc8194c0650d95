"""`chaku eval judge-check`: each fake judge is diagnosed with its fault, and an honest one with none."""

from __future__ import annotations

import asyncio
import json
import random
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from model_server import ModelServer

from chaku.cli.main import root
from chaku.comparison import Comparison, write_comparisons
from chaku.evals.fake_judges import FAKES, fake_judge
from chaku.evals.judge_check import Diagnosis, diagnose
from chaku.evals.judge_trial import try_judge
from chaku.evals.plan import Judging
from chaku.evals.probes import Material, material_of_references, padded, plan_probes
from chaku.evals.prompts import built_in
from chaku.evals.records import LABELS_FILE, ContestantAnswer, Manifest, Question, write_records, write_run
from chaku.evals.suites import load_suite
from chaku.settings import Contestant
from fake_openai import refusal

SHARED = Path(__file__).parents[2] / "../shared/data/vicuna80"
NAMES = ("oak", "fir", "elm", "ash", "yew", "bay")
JUDGING = Judging("under-test", "verdict", built_in("verdict"))
NUM_CASES = 80


@cache
def material(seed: int) -> tuple[Material, dict[tuple[str, str], float], str]:
    """Answers of three contestants with names drawn by the seed, how good they are, and the judge's own contestant."""
    chance = random.Random(seed)
    names = chance.sample(NAMES, 3)
    strengths = dict(zip(names, (0.0, 0.6, 1.2), strict=True))
    questions = [Question(id=f"q{number}", turns=(f"What about {number}?",)) for number in range(60)]
    quality, answers, labels = {}, {}, []
    for question in questions:
        for name in names:
            quality[question.id, name] = strengths[name] + chance.gauss(0, 1)
            words = " ".join(chance.choice(("so", "then", "well", "perhaps")) for _ in range(chance.randint(5, 60)))
            answers[question.id, name, 0] = ContestantAnswer(
                key=f"{question.id} {name}", question_id=question.id, model=name, turns=(f"{words}.",)
            )
        for first, second in ((names[0], names[1]), (names[1], names[2]), (names[2], names[0])):
            outcome = "a" if quality[question.id, first] > quality[question.id, second] else "b"
            labels.append(
                Comparison(
                    source="human", model_a=first, model_b=second, outcome=outcome,  # type: ignore[arg-type]
                    prompt_id=question.id, cluster=question.id,
                )
            )  # fmt: skip
    return Material(questions, answers, names, labels), quality, names[0]


def checked(fake: str, seed: int = 0, *, slow_s: float = 5.0) -> Diagnosis:
    given, quality, own = material(seed)
    probes = plan_probes(given, JUDGING, num_cases=NUM_CASES, seed=seed)
    judge = fake_judge(fake, labels=quality, own=own, seed=seed)
    trial = asyncio.run(try_judge(probes, judge, JUDGING, parallel=50))
    return diagnose(fake, probes, trial, given, own=own, slow_s=slow_s)


@pytest.mark.parametrize(
    ("fake", "fault", "not_accused_of"),
    [
        ("always-first", "position", {"verbosity", "self-preference", "retest", "unreadable", "length"}),
        ("always-longer", "verbosity", {"position", "self-preference", "retest", "unreadable", "flips"}),
        ("own-name", "self-preference", {"position", "verbosity", "retest", "unreadable", "length"}),
        ("coin", "agreement", {"position", "verbosity", "self-preference", "unreadable", "length"}),
        ("noisy-oracle", "retest", {"position", "verbosity", "self-preference", "unreadable", "length", "agreement"}),
        ("malformed", "unreadable", {"position", "verbosity", "self-preference", "retest", "length", "agreement"}),
    ],
)
def test_each_faulty_judge_is_not_fit_for_the_reason_that_was_built_in(
    fake: str, fault: str, not_accused_of: set[str]
) -> None:
    for seed in (1, 2, 3):
        diagnosis = checked(fake, seed)
        assert diagnosis.fitness == "not fit"
        assert fault in diagnosis.faults
        assert not diagnosis.faults & not_accused_of
        assert any(reason.startswith(f"{fault}:") for reason in diagnosis.reasons)


def test_an_honest_judge_is_not_accused_in_twenty_seeds() -> None:
    for seed in range(20):
        diagnosis = checked("oracle", seed)
        assert (diagnosis.faults, diagnosis.warnings, diagnosis.fitness) == (set(), set(), "fit"), seed


def test_a_judge_that_can_never_be_read_is_not_fit_and_no_number_is_made_up() -> None:
    given, _, _ = material(0)
    probes = plan_probes(given, JUDGING, num_cases=20)

    async def mumble(probe: object) -> str:
        return "Well."

    diagnosis = diagnose("j", probes, asyncio.run(try_judge(probes, mumble, JUDGING, parallel=9)), given)
    assert (diagnosis.fitness, diagnosis.faults) == ("not fit", {"unreadable"})
    numbers = {finding.name: finding.number for finding in diagnosis.findings}
    assert numbers["flips"] == numbers["retest"] == numbers["empty"] == "no readable verdicts"
    assert not any("nan" in number for number in numbers.values())


def test_a_slow_judge_and_one_with_a_limit_of_calls_are_named_and_still_fit() -> None:
    slow = checked("slow", slow_s=0.04)
    assert (slow.warnings, slow.fitness) == ({"slow"}, "fit")
    limited = checked("429")
    assert (limited.warnings, limited.fitness) == ({"rate limit"}, "fit")
    assert not limited.faults


def test_self_preference_can_not_be_told_without_labels_or_other_judges_and_can_be_with_either() -> None:
    given, quality, own = material(1)
    bare = Material(given.questions, given.answers, given.names)
    probes = plan_probes(bare, JUDGING, num_cases=NUM_CASES)
    trial = asyncio.run(try_judge(probes, fake_judge("own-name", labels=quality, own=own), JUDGING, parallel=50))

    def finding(**arguments: object) -> tuple[str, bool]:
        found = diagnose("j", probes, trial, bare, **arguments).findings  # type: ignore[arg-type]
        return next((one.number, one.is_fault) for one in found if one.name == "self-preference")

    assert finding() == ("can't be told", False)
    assert finding(own=own) == ("can't be told", False)
    assert finding(own=own, other_judges=given.labels)[1]
    assert diagnose("j", probes, trial, bare).fitness == "fit for ranking only", "nobody compared it with people"


def test_a_judge_that_exaggerates_gaps_is_fit_for_ranking_only() -> None:
    given, _, _ = material(4)
    strengths = {name: float(place) for place, name in enumerate(given.names)}
    chance = random.Random(0)

    def outcome(label: Comparison) -> str:
        first_is_better = strengths[label.model_a] > strengths[label.model_b]
        return "a" if first_is_better ^ (chance.random() < 0.25) else "b"

    labels = [label.model_copy(update={"outcome": outcome(label)}) for label in given.labels]
    always_by_rank = {(question.id, name): strengths[name] for question in given.questions for name in given.names}
    of_people = Material(given.questions, given.answers, given.names, labels)
    probes = plan_probes(of_people, JUDGING, num_cases=180)
    trial = asyncio.run(try_judge(probes, fake_judge("oracle", labels=always_by_rank), JUDGING, parallel=50))
    diagnosis = diagnose("j", probes, trial, of_people)
    assert "exaggeration" in diagnosis.warnings and diagnosis.fitness == "fit for ranking only"


def test_without_any_answers_references_make_pairs_whose_better_side_is_known() -> None:
    given = material_of_references(load_suite("chaku-80"))
    assert len(given.labels) == 50 and len({label.model_a for label in given.labels}) == 2
    assert all(not question.reference for question in given.questions), "the judge does not see the solution"
    quality = {(label.prompt_id or "", label.model_a): 1.0 for label in given.labels}
    probes = plan_probes(given, JUDGING, num_cases=50)
    results = {}
    for fake in FAKES:
        judge = fake_judge(fake, labels=quality, own=given.names[0])
        trial = asyncio.run(try_judge(probes, judge, JUDGING, parallel=50))
        results[fake] = diagnose(fake, probes, trial, given, own=given.names[0], slow_s=0.04)
    assert {fake for fake, diagnosis in results.items() if diagnosis.fitness == "not fit"} == set(FAKES) - {
        "oracle",
        "slow",
        "429",
    }
    assert results["oracle"].fitness == "fit for ranking only"


def test_padding_adds_nothing_but_repetition() -> None:
    assert padded(("First. Second!",)) == ("First. Second!\n\nThe main points once more:\n\n- First.\n- Second!",)


def test_each_case_is_seen_in_both_orders_and_the_plan_is_the_same_for_a_seed() -> None:
    given, _, _ = material(0)
    probes = plan_probes(given, JUDGING, num_cases=NUM_CASES, seed=7)
    orders = {(probe.case, probe.names) for probe in probes if probe.kind == "pair"}
    assert len(orders) == 2 * NUM_CASES and len({case for case, _ in orders}) == NUM_CASES
    keys = [probe.task.key for probe in probes]
    assert len(keys) == len(set(keys))
    assert keys == [probe.task.key for probe in plan_probes(given, JUDGING, num_cases=NUM_CASES, seed=7)]


def run_check(*arguments: object) -> Any:
    result = CliRunner().invoke(root, ["eval", "judge-check", *map(str, arguments)], standalone_mode=False)
    assert result.exception is None, result.output
    return result


def test_a_judge_behind_an_api_is_tried_once_and_its_refused_calls_are_counted(tmp_path: Path) -> None:
    with ModelServer({"biased": lambda body: "As I see it:\n[[A]]"}).running() as server:
        server.script.extend(refusal(429, "slow down", headers={"Retry-After": "0"}) for _ in range(3))
        at = ("biased", "--base-url", server.base_url, "-o", tmp_path / "check", "--json")
        diagnosis = json.loads(run_check(*at).stdout)
        num_calls = sum(server.asked.values())
        again = json.loads(run_check(*at).stdout)
        assert sum(server.asked.values()) == num_calls == 280
    assert diagnosis["fitness"] == again["fitness"] == "not fit"
    numbers = {finding["name"]: finding["number"] for finding in diagnosis["findings"]}
    assert numbers["rate limit"] == "3 of 283"
    assert "it prefers what is shown first" in " ".join(diagnosis["reasons"])
    assert json.loads((tmp_path / "check/diagnosis.json").read_text()) == again


def test_labels_of_people_beside_the_answers_are_used(tmp_path: Path) -> None:
    given, _, own = material(2)
    contestants = tuple(Contestant(name=name, model=f"model-of-{name}") for name in given.names)
    folder = tmp_path / "run"
    write_run(folder, Manifest(suite="mine", created="2026-11-28T00:00:00Z", contestants=contestants), given.questions)
    write_records(folder / "answers.jsonl", given.answers.values())
    write_comparisons(folder / LABELS_FILE, given.labels)
    options = ("--answers", folder, "-o", tmp_path / "check", "--items", "60")
    shown = run_check("fake:oracle", *options).stdout
    assert shown.startswith("fake:oracle: fit\n") and "agreement with human labels" in shown
    diagnosis = json.loads(
        run_check("fake:own-name", *options, "--own", own, "-o", tmp_path / "other", "--json").stdout
    )
    assert any(reason.startswith("self-preference") for reason in diagnosis["reasons"])


def test_a_person_labels_blind_with_keys_and_continues_later(tmp_path: Path) -> None:
    given, _, _ = material(2)
    contestants = tuple(Contestant(name=f"model-{name}", model=name) for name in given.names)
    folder = tmp_path / "run"
    write_run(folder, Manifest(suite="mine", created="2026-11-28T00:00:00Z", contestants=contestants), given.questions)
    answers = [
        answer.model_copy(update={"model": f"model-{answer.model}", "key": str(number)})
        for number, answer in enumerate(given.answers.values())
    ]
    write_records(folder / "answers.jsonl", answers)

    def press(keys: str) -> str:
        words = ["eval", "label", str(folder), "--items", "6", "--voter", "ana"]
        result = CliRunner().invoke(root, words, input=keys, standalone_mode=False)
        assert result.exception is None, result.output
        assert "model-" not in result.output, "names are not shown"
        return result.output

    def outcomes() -> list[object]:
        return [json.loads(line)["outcome"] for line in (folder / LABELS_FILE).read_text().splitlines()]

    assert "0 of 6 pairs are labelled" in press("1u2tq")
    assert outcomes() == ["b", "tie"]
    assert "2 of 6 pairs are labelled" in press("zbs1")
    assert outcomes() == ["b", "tie", "both_bad", "a"]
    press("2")
    assert "5 of 6" in press("1") and len(outcomes()) == 6
    assert {json.loads(line)["voter"] for line in (folder / LABELS_FILE).read_text().splitlines()} == {"ana"}
    assert len({json.loads(line)["prompt_id"] for line in (folder / LABELS_FILE).read_text().splitlines()}) == 6


@pytest.mark.skipif(not SHARED.exists(), reason="../shared/data/vicuna80 is not here")
def test_the_published_answers_and_their_human_labels_are_material(tmp_path: Path) -> None:
    files = [SHARED / f"answer/answer_{name}.jsonl" for name in ("gpt35", "vicuna-13b")]
    at = ["--answers", files[0], "--answers", files[1], "--labels", SHARED / "human/gpt35_vicuna-13b.jsonl", "--json"]
    numbers = {}
    for fake in ("oracle", "always-longer"):
        diagnosis = json.loads(run_check(f"fake:{fake}", *at, "-o", tmp_path / fake).stdout)
        numbers[fake] = {finding["name"]: finding["number"] for finding in diagnosis["findings"]}
        assert (diagnosis["fitness"] == "fit") is (fake == "oracle")
    assert numbers["oracle"]["agreement"].startswith("80/80 = 100%")
    assert numbers["always-longer"]["agreement"] != numbers["oracle"]["agreement"]
