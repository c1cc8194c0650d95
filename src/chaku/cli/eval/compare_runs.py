"""`chaku eval compare`: models of runs and logs against each other, with error bars, for people and for CI."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal
from xml.etree import ElementTree

import click

from chaku.arena.battle_files import read_battles
from chaku.cli.help_page import command
from chaku.cli.json_output import print_json
from chaku.cli.lines import say
from chaku.comparison import Comparison
from chaku.errors import ChakuError
from chaku.evals.comparing import Compared, compare, parse_condition
from chaku.evals.measured import matches, read_source
from chaku.evals.records import LABELS_FILE
from chaku.records import atomic_write
from chaku.statistics.means import Estimate

_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 can't hold."""


@command("compare")
@click.argument("sources", metavar="RUN...", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "-m", "--model", "models", metavar="MODEL", multiple=True, help="Compare only these models, in this order."
)
@click.option(
    "--metric",
    metavar="NAME",
    show_default="the first in common",
    help="What to compare: verdict, pair-score, score, or a check's name.",
)
@click.option(
    "--cluster",
    type=click.Choice(["question", "category"]),
    default="question",
    show_default=True,
    help="Which judgements depend on each other.",
)
@click.option(
    "--labels",
    "label_files",
    metavar="FILE",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Human labels, beside those in the runs.",
)
@click.option(
    "--fail-if",
    "conditions",
    metavar="CONDITION",
    multiple=True,
    help='Exit with 1 if it holds for a pair: "worse,p<0.05".',
)
@click.option(
    "--junit", metavar="FILE", type=click.Path(path_type=Path), help="Write the pairs as tests in JUnit's XML."
)
@click.option("--json", "as_json", is_flag=True, help="Print as one JSON object.")
def compare_runs(
    sources: tuple[Path, ...],
    models: tuple[str, ...],
    metric: str | None,
    cluster: Literal["question", "category"],
    label_files: tuple[Path, ...],
    conditions: tuple[str, ...],
    junit: Path | None,
    as_json: bool,
) -> None:
    """Compare models on the questions that they share.

    A RUN is a run's folder, a log of inspect (.json, .eval), or lm-eval's samples. The difference is that of the later
    model minus the earlier one. Its interval is cluster-robust; with fewer than 30 clusters the p-value is that of a
    permutation test. P-values are adjusted over all pairs (Holm).

    A condition of --fail-if has parts that must all hold: worse, better, and p, difference, low or high with a limit.
    """
    tests = {text: parse_condition(text) for text in conditions}
    found = matches([read_source(path) for path in sources], metric=metric, models=models)
    beside = [path / LABELS_FILE for path in sources if (path / LABELS_FILE).exists()]
    labels = _people([*beside, *label_files])
    compared = compare(found, labels, cluster=cluster)
    failed = {one: [text for text, test in tests.items() if test(one)] for one in compared}
    if junit is not None:
        with atomic_write(junit) as file:
            file.write(as_junit(compared, failed))
    if as_json:
        content = {"comparisons": [one.as_json() for one in compared]}
        print_json(content)
    else:
        say("\n\n".join(map(in_words, compared)))
    if any(failed.values()):
        cases = [f"{one.match.pair.model_b} against {one.match.pair.model_a}" for one in compared if failed[one]]
        raise ChakuError(f"the condition to fail holds for {len(cases)} of {len(compared)}: {', '.join(cases)}")


def in_words(compared: Compared) -> str:
    """A pair as a few lines of text."""
    match, pair, difference = compared.match, compared.match.pair, compared.difference
    judges = {judge for judge, _ in match.judges} - {match.metric}
    judged = f", judged by {', '.join(sorted(judges))}" if judges else ""
    unit = "question" if difference.num_clusters == len(pair.questions) else "cluster"
    lines = [
        f"{pair.model_a} and {pair.model_b}: {match.metric} on {len(pair.questions):,} questions{judged}",
        f"  {pair.model_a} {pair.values_a.mean():.3f}, {pair.model_b} {pair.values_b.mean():.3f}: "
        f"difference {_signed(difference)}, p {_p(compared.p)} ({_test(compared)})",
        f"  {_conclusion(compared)}",
        f"  {_power(compared, unit)}",
        f"  {pair.model_b} wins {pair.count('b')}, ties {pair.count('tie')}, loses {pair.count('a')}: "
        f"win rate {_share(compared.win_rate)}",
    ]
    if compared.win_rate_at_equal_lengths is not None:
        lines.append(f"  win rate at equal lengths {_share(compared.win_rate_at_equal_lengths)}")
    if compared.win_rate_by_people is not None:
        lines.append(
            f"  win rate corrected by {compared.num_labels} human labels {_share(compared.win_rate_by_people)}"
        )
    if match.num_unread:
        lines.append(f"  {match.num_unread:,} judgements could not be read and are left out")
    if match.num_only_a or match.num_only_b:
        lines.append(
            f"  left out: {match.num_only_a:,} questions with the first only, {match.num_only_b:,} with the second only"
        )
    return "\n".join(lines)


def as_junit(compared: Sequence[Compared], failed: dict[Compared, list[str]]) -> bytes:
    """One test per pair, which fails where a condition holds."""
    suite = ElementTree.Element(
        "testsuite",
        name="chaku eval compare",
        tests=str(len(compared)),
        failures=str(sum(bool(reasons) for reasons in failed.values())),
        errors="0",
    )
    for one in compared:
        pair, text = one.match.pair, _UNPRINTABLE.sub("?", in_words(one))
        name = _UNPRINTABLE.sub("?", f"{pair.model_b} against {pair.model_a}")
        case = ElementTree.SubElement(suite, "testcase", classname=_UNPRINTABLE.sub("?", one.match.metric), name=name)
        if failed[one]:
            ElementTree.SubElement(case, "failure", message="; ".join(failed[one])).text = text
        else:
            ElementTree.SubElement(case, "system-out").text = text
    document: bytes = ElementTree.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document


def _people(paths: Sequence[Path]) -> list[Comparison]:
    return [game for game in read_battles(paths).counted if game.judge is None] if paths else []


def _conclusion(compared: Compared) -> str:
    pair = compared.match.pair
    if compared.verdict == "no difference found":
        return "No difference was found. That does not mean that there is none."
    return f"{pair.model_b} is {compared.verdict} than {pair.model_a}."


def _power(compared: Compared, unit: str) -> str:
    num = compared.difference.num_clusters
    if not compared.detectable:
        return f"The difference is the same on all {num:,} {unit}s, so its error can't be estimated."
    sentence = f"With {num:,} {unit}s, a true difference of {compared.detectable:.3f} is found with 80 % chance."
    return sentence + _needed(compared, unit)


def _needed(compared: Compared, unit: str) -> str:
    if compared.verdict != "no difference found" or compared.needed is None:
        return ""
    return f" The difference above would need {compared.needed:,} {unit}s."


def _test(compared: Compared) -> str:
    name = (
        "permutation test"
        if compared.test == "permutation"
        else f"t, {compared.difference.num_clusters - 1} degrees of freedom"
    )
    adjusted = "" if compared.p_adjusted == compared.p else f"; p {_p(compared.p_adjusted)} adjusted for all pairs"
    return name + adjusted


def _signed(estimate: Estimate) -> str:
    return f"{estimate.value:+.3f} [{estimate.low:+.3f}, {estimate.high:+.3f}]"


def _share(estimate: Estimate) -> str:
    return f"{estimate.value:.1%} [{max(0.0, estimate.low):.1%}, {min(1.0, estimate.high):.1%}]"


def _p(p: float) -> str:
    return "< 0.0001" if p < 0.0001 else f"= {p:.4f}" if p < 0.001 else f"= {p:.3f}"
