"""`chaku eval import`: what FastChat recorded, as totals, wins and agreements with error bars, and as a run."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from chaku import __version__
from chaku.cli.eval.labels import read_labels
from chaku.cli.help_page import command
from chaku.cli.json_output import print_json
from chaku.comparison import Comparison, write_comparisons
from chaku.errors import UsageError
from chaku.evals.agreement import Agreement, among_people, with_people
from chaku.evals.fastchat import OldFiles, kind_of, questions_beside, read_old_files, read_old_questions
from chaku.evals.pairs import Pair, pairs_of
from chaku.evals.quality import Quality, relative_quality
from chaku.evals.records import LABELS_FILE, Manifest, Question, write_records, write_run
from chaku.evals.reparsing import reparse
from chaku.settings import Contestant

_FILE = click.Path(path_type=Path, dir_okay=False, exists=True)


@command("import")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=_FILE)
@click.option(
    "--questions",
    "question_file",
    metavar="FILE",
    type=_FILE,
    show_default="question.jsonl beside the files",
    help="Take questions and categories from this file.",
)
@click.option("--reparse", "is_reparsed", is_flag=True, help="Count what the texts say, not the recorded scores.")
@click.option("--reference", metavar="MODEL", show_default="the best", help="The model whose quality is 100 %.")
@click.option("-o", "--output", metavar="RUN", type=click.Path(path_type=Path), help="Write a run's folder.")
@click.option("--json", "as_json", is_flag=True, help="Print as one JSON object.")
def import_files(
    files: tuple[Path, ...],
    question_file: Path | None,
    is_reparsed: bool,
    reference: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Read answers, judgements and human labels of FastChat, and print what they say.

    Reviews with two scores, MT-bench judgements, answers and labels are detected by their fields. Scores are those that
    were recorded. The difference of a pair is the second model's score minus the first one's, by question, with a 95 %
    interval.
    """
    kinds = {path: kind_of(path) for path in files}
    old = read_old_files([path for path, kind in kinds.items() if kind is not None])
    labels = read_labels([path for path, kind in kinds.items() if kind is None])
    question_file = question_file or questions_beside(files)
    questions = read_old_questions(question_file) if question_file else {}
    content: dict[str, Any] = {}
    if is_reparsed:
        result = reparse(old.judgements, questions)
        old.judgements, content = result.judgements, result.as_json()
    pairs = pairs_of(old.judgements)
    quality = relative_quality(pairs, reference)
    agreements = _agreements(old, labels)
    if output is not None:
        _write(output, files, old, labels, questions)
    if as_json:
        shown = {
            "pairs": [pair.as_json() for pair in pairs],
            "quality": [one.as_json() for one in quality],
            "agreements": [{"judge": judge, "turn": turn, **_agreement(one)} for judge, turn, one in agreements],
            "unread": sum(judgement.state != "ok" for judgement in old.judgements),
        }
        print_json(shown | content)
        return
    _print(pairs, quality, agreements, content)
    click.echo(f"{len(old.answers):,} answers, {len(old.judgements):,} judgements, {len(labels):,} labels", err=True)


def _agreements(old: OldFiles, labels: list[Comparison]) -> list[tuple[str, int, tuple[Agreement, Agreement]]]:
    """(judge or "people", turn, with and without ties), where there is something to compare."""
    people = [game for game in labels if game.source == "human" and not (game.voter or "").startswith("author")]
    verdicts: dict[str, list[Comparison]] = {}
    for game in labels:
        if game.judge is not None:
            verdicts.setdefault(game.judge, []).append(game)
    for judgement in old.judgements:
        if (verdict := judgement.comparison()) is not None:
            verdicts.setdefault(judgement.judge, []).append(verdict)
    found = []
    for turn in sorted({game.turn for game in people}):
        votes = [game for game in people if game.turn == turn]
        for judge, games in verdicts.items():
            chosen = [game for game in games if game.turn == turn]
            found.append((judge, turn, (with_people(chosen, votes), with_people(chosen, votes, ties=False))))
        found.append(("people", turn, (among_people(votes), among_people(votes, ties=False))))
    return [(judge, turn, both) for judge, turn, both in found if both[0].compared]


def _agreement(both: tuple[Agreement, Agreement]) -> dict[str, Any]:
    return {"with_ties": both[0].as_json(), "without_ties": both[1].as_json()}


def _write(
    folder: Path, files: Sequence[Path], old: OldFiles, labels: list[Comparison], questions: dict[str, Question]
) -> None:
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} is not empty", fix="name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    asked = [answer.question_id for answer in old.answers] + [one.question_id for one in old.judgements]
    models = dict.fromkeys(name for one in old.judgements for name in one.models)
    models |= dict.fromkeys(answer.model for answer in old.answers)
    manifest = Manifest(
        suite=files[0].stem if len(files) == 1 else f"{files[0].stem} and {len(files) - 1} more",
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        contestants=tuple(Contestant(name=name, model=name) for name in models),
        judge=old.judgements[0].judge if old.judgements else None,
        mode=old.judgements[0].mode if old.judgements else None,
        num_answers=len(old.answers),
        num_judgements=len(old.judgements),
        chaku=__version__,
        imported_from=tuple(map(str, files)),
    )
    kept = [questions.get(each) or Question(id=each, turns=("",)) for each in dict.fromkeys([*questions, *asked])]
    write_run(folder, manifest, kept)
    write_records(folder / "answers.jsonl", old.answers)
    write_records(folder / "judgements.jsonl", old.judgements)
    if labels:
        write_comparisons(folder / LABELS_FILE, labels)
    click.echo(f"{folder}: a run with {len(models)} models; `chaku eval report {folder}` shows it", err=True)


def _print(
    pairs: list[Pair],
    quality: list[Quality],
    agreements: list[tuple[str, int, tuple[Agreement, Agreement]]],
    content: dict[str, Any],
) -> None:
    console = Console(highlight=False)
    if pairs:
        table = Table("first", "second", box=None, header_style="bold")
        for name in ("total", "total ", "wins", "ties", "wins ", "second - first, 95 %"):
            table.add_column(name, justify="right")
        for pair in pairs:
            totals = (f"{each.sum():.1f}" if pair.has_scores else "-" for each in (pair.values_a, pair.values_b))
            counts = (str(pair.count(outcome)) for outcome in ("a", "tie", "b"))
            table.add_row(pair.model_a, pair.model_b, *totals, *counts, str(pair.difference or "-"))
        console.print(table)
    if quality:
        console.print("relative quality, 95 %:")
    for one in quality:
        console.print(f"  {one.model:<{max(len(each.model) for each in quality)}} {one}")
    for judge, turn, (all_cases, decided) in agreements:
        who = "people among themselves" if judge == "people" else f"{judge} and people"
        console.print(f"turn {turn}: {who} agree in {all_cases}, without ties in {decided}")
    if content:
        console.print(f"{content['equal']} of {content['compared']} texts say what was recorded")
        for case in (*content["conflicts"], *content["unparsed"]):
            what = (
                f"its text says {case['parsed']}" if "parsed" in case else f"its text can't be read: {case['reason']}"
            )
            console.print(
                f"question {case['question_id']}, {' and '.join(case['models'])}: recorded {case['recorded']}, {what}"
            )
