"""`chaku eval show`: what a run's folder holds so far."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import click
import orjson

from chaku.cli.help_page import command
from chaku.evals.records import Run


@command()
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path, file_okay=False))
@click.option("--json", "as_json", is_flag=True, help="Print the counts as one JSON object.")
def show(folder: Path, as_json: bool) -> None:
    """Show what a run's folder holds: questions, answers and judgements, and how many failed.

    A run that still writes can be shown too.
    """
    counts = counts_of(Run.load(folder))
    if as_json:
        click.echo(orjson.dumps(counts).decode())
        return
    print_counts(counts)


def print_counts(counts: dict[str, Any]) -> None:
    """Print the numbers of a run, one line each."""
    for name, value in counts.items():
        shown = ", ".join(f"{key} {number:,}" for key, number in value.items()) if isinstance(value, dict) else value
        click.echo(f"{name.replace('_', ' '):<12} {shown}")


def counts_of(run: Run) -> dict[str, Any]:
    """The numbers of a run, for people and programs alike."""
    manifest = run.manifest
    states = Counter(judgement.state for judgement in run.judgements if judgement.mode != "check")
    passed = Counter(judgement.scores == (1.0,) for judgement in run.judgements if judgement.mode == "check")
    return {
        "suite": manifest.suite,
        "models": ", ".join(manifest.model_names),
        "judge": manifest.judge or "none",
        "questions": len(run.questions),
        "answers": {
            "planned": manifest.num_answers,
            "ok": sum(not answer.error for answer in run.answers),
            "failed": sum(bool(answer.error) for answer in run.answers),
        },
        "judgements": {
            "planned": manifest.num_judgements,
            **{state: states[state] for state in ("ok", "unparsed", "failed")},
        },
        **({"checks": {"passed": passed[True], "not passed": passed[False]}} if passed else {}),
        "dollars": round(run.dollars, 6),
    }
