"""`chaku eval judge-check`: the judge is judged before it is trusted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import orjson

from chaku.cli.eval.asking import prices_of
from chaku.cli.eval.labels import read_labels
from chaku.cli.eval.options import calling_options, judge_options
from chaku.cli.help_page import command
from chaku.cli.json_output import print_json
from chaku.cli.progress.requests import RequestCounts
from chaku.cli.terminal.asking import endpoint_options, run_until_ended
from chaku.cli.terminal.endpoint import choose
from chaku.comparison import Comparison
from chaku.errors import UsageError
from chaku.evals.answer_files import read_answers
from chaku.evals.caller import ModelCaller, ModelHost
from chaku.evals.fake_judges import FAKES, fake_judge
from chaku.evals.judge_check import Diagnosis, diagnose
from chaku.evals.judge_faults import SLOW_S
from chaku.evals.judge_trial import HttpJudge, Trial, try_judge
from chaku.evals.plan import Judging
from chaku.evals.prices import Budget
from chaku.evals.probes import Material, Probe, material_of_references, plan_probes
from chaku.evals.prompts import load_prompts
from chaku.evals.records import LABELS_FILE, Judgement, Run, newest, read_records
from chaku.evals.suites import load_suite
from chaku.records import append_only, atomic_write

_PATH = click.Path(path_type=Path, exists=True)
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_FAKE = "fake:"


@command("judge-check", sections={"Calls": "output"})
@click.argument("judge")
@click.option(
    "--answers",
    "sources",
    metavar="ANSWERS",
    type=_PATH,
    multiple=True,
    show_default="references of chaku-80",
    help="Answers to compare: a run's folder, or what `chaku eval judge` takes. Several times.",
)
@click.option("--questions", "suite", metavar="SUITE", help="The questions, where the answers come without them.")
@click.option(
    "--labels",
    "label_files",
    metavar="FILE",
    type=_FILE,
    multiple=True,
    show_default="labels.jsonl of the run",
    help="What people said of the same pairs. Several times.",
)
@click.option("--own", metavar="NAME", show_default="the contestant of that model", help="The judge's own contestant.")
@click.option(
    "--items", metavar="N", type=click.IntRange(10), default=80, show_default=True, help="Pairs to try it with."
)
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Chooses the pairs and their order.")
@click.option(
    "--slow",
    "slow_s",
    metavar="SECONDS",
    type=click.FloatRange(min=0),
    default=SLOW_S,
    show_default=True,
    help="Note a judge whose median judgement takes longer.",
)
@endpoint_options
@judge_options
@calling_options
def judge_check(
    judge: str, sources: tuple[Path, ...], suite: str | None, label_files: tuple[Path, ...], own: str | None,
    items: int, seed: int, slow_s: float, base_url: str | None, api_key: str | None, prompts: Path | None,
    judge_temperature: float, judge_tokens: int, output: Path | None, parallel: int, prices: Path | None,
    budget: float | None, dry_run: bool, as_json: bool,
) -> None:  # fmt: skip
    """Find out whether a judge can be trusted: fit, fit for ranking only, or not fit.

    The judge sees pairs of answers in both orders, some twice, and identical, empty and padded answers. Each fault is
    shown with its number and interval. With labels of people, its agreement stands beside that of people among
    themselves.

    JUDGE is a model, or a fake with one known fault: fake:always-first, fake:always-longer, fake:own-name, fake:coin,
    fake:oracle, fake:noisy-oracle, fake:malformed, fake:slow or fake:429.
    """
    sampling = {"temperature": judge_temperature, "max_tokens": judge_tokens}
    judging = Judging(judge, "verdict", load_prompts(prompts, "verdict"), sampling=sampling)
    material, contestants, others = _material(judge, sources, suite, label_files, seed)
    if own is None and judge in contestants.values():
        own = next(name for name, model in contestants.items() if model == judge)
    elif own is not None and own not in material.names:
        raise UsageError(f"--own {own} is not a contestant", fix=f"contestants: {', '.join(material.names)}")
    probes = plan_probes(material, judging, num_cases=items, seed=seed)
    if not probes:
        raise UsageError("there are no two answers to one question", fix="give answers of two contestants")
    if dry_run:
        click.echo(
            orjson.dumps({"calls": len(probes)}).decode() if as_json else f"{len(probes):,} calls; nothing was sent"
        )
        return
    folder = output or Path("evals") / f"judge-check-{judge.removeprefix(_FAKE).replace('/', '_')}"
    price_list = prices_of(prices)
    Budget(budget, price_list).require_prices([] if judge.startswith(_FAKE) else [judge])
    trial = _try(
        probes,
        judging,
        folder,
        parallel,
        material,
        own,
        base_url,
        api_key,
        lambda spent: Budget(budget, price_list, spent=spent),
    )
    diagnosis = diagnose(judge, probes, trial, material, own=own, other_judges=others, slow_s=slow_s)
    with atomic_write(folder / "diagnosis.json") as file:
        file.write(orjson.dumps(diagnosis.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    if as_json:
        print_json(diagnosis.as_json())
    else:
        print_diagnosis(diagnosis)


def _material(
    judge: str, sources: Sequence[Path], suite: str | None, label_files: Sequence[Path], seed: int
) -> tuple[Material, dict[str, str], list[Comparison]]:
    """What to show; the contestants' models by name; what other judges said of the same answers."""
    if not sources:
        if label_files:
            raise UsageError("--labels is given without the answers that people compared", fix="give --answers")
        material = material_of_references(load_suite(suite or "chaku-80"), seed=seed)
        return material, {}, []
    given = read_answers(sources, load_suite(suite) if suite else None)
    runs = [path for path in sources if path.is_dir()]
    beside = [path / LABELS_FILE for path in runs if (path / LABELS_FILE).exists()]
    labels = read_labels([*label_files, *beside])
    others = [
        game
        for path in runs
        for judgement in Run.load(path).judgements
        if judgement.judge != judge and (game := judgement.comparison()) is not None
    ]
    contestants = {contestant.name: contestant.model for contestant in given.contestants}
    answers = {(answer.question_id, answer.model, answer.sample): answer for answer in given.answers}
    return Material(given.questions, answers, list(contestants), labels), contestants, others


def _try(
    probes: Sequence[Probe], judging: Judging, folder: Path, parallel: int, material: Material, own: str | None,
    base_url: str | None, api_key: str | None, budget_of: Any,
) -> Trial:  # fmt: skip
    """The trial, with every judgement on disk when it came."""
    path = folder / "judgements.jsonl"
    with append_only(path) as file:
        known = {
            judgement.key: judgement
            for judgement in newest(read_records(path, Judgement))
            if judgement.state != "failed"
        }
        missing = sum(probe.task.key not in known for probe in probes)
        if missing < len(probes):
            click.echo(f"{len(probes) - missing:,} of {len(probes):,} judgements are recorded", err=True)
        counts = RequestCounts(missing, "judgements")

        def watch(judgement: Judgement) -> None:
            file.add(judgement.line())
            counts.add(is_failed=judgement.state == "failed", tokens=judgement.usage.completion_tokens)

        async def try_it() -> Trial:
            if judging.judge.startswith(_FAKE):
                return await try_judge(
                    probes, _fake(judging.judge, material, own), judging, parallel=parallel, known=known, watch=watch
                )
            spent = sum(judgement.usage.dollars or 0.0 for judgement in known.values())
            async with choose(base_url, api_key, judging.judge) as endpoint:
                host = ModelHost(endpoint.base_url, endpoint.api_key)
                served = {judging.judge: endpoint.model or judging.judge}
                async with ModelCaller(
                    {judging.judge: host},
                    parallel=parallel,
                    budget=budget_of(spent),
                    served=served,
                    waits_for_limits=False,
                ) as caller:
                    ask = HttpJudge(caller, judging)
                    return await try_judge(
                        probes, ask, judging, parallel=parallel, known=known, watch=watch, usages=ask.usages
                    )

        trial = run_until_ended(try_it())
        if missing:
            counts.end()
        return trial


def _fake(judge: str, material: Material, own: str | None) -> Any:
    name = judge.removeprefix(_FAKE)
    if name not in FAKES:
        raise UsageError(f"there is no fake judge {name!r}", fix=f"fakes: {', '.join(FAKES)}")
    quality: dict[tuple[str, str], float] = {}
    for game in material.labels:
        for contestant, score in ((game.model_a, game.score), (game.model_b, 1 - game.score)):
            key = (game.prompt_id or "", contestant)
            quality[key] = quality.get(key, 0.0) + score
    return fake_judge(name, labels=quality, own=own or material.names[0])


def print_diagnosis(diagnosis: Diagnosis) -> None:
    """Print the verdict, its reasons, and every number."""
    click.secho(f"{diagnosis.judge}: {diagnosis.fitness}", bold=True)
    for reason in diagnosis.reasons:
        click.echo(f"  {reason}")
    click.echo()
    for finding in diagnosis.findings:
        mark = "FAULT" if finding.is_fault else "note" if finding.is_warning else ""
        click.echo(f"{mark:<6}{finding.name:<16}{finding.number:<30}  {finding.meaning}")
