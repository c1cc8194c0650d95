"""`chaku eval label`: a person says which answers are better, without knowing whose they are."""

from __future__ import annotations

import datetime
import getpass
import random
from itertools import combinations, zip_longest
from pathlib import Path

import click
import orjson

from chaku.cli.help_page import command
from chaku.cli.terminal.markdown import clean
from chaku.comparison import Comparison, Outcome
from chaku.errors import UsageError
from chaku.evals.records import LABELS_FILE, Question, Run
from chaku.records import append_only

_KEYS: dict[str, Outcome] = {"1": "a", "2": "b", "t": "tie", "b": "both_bad"}
_SKIP = "s"
_END = ("q", "", "\x03", "\x04")
"""The empty text is the end of standard input."""
_ASKED = "1 first is better · 2 second · t tie · b both are bad · s skip · u undo · q quit "


@command("label")
@click.argument("folder", metavar="RUN", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option(
    "--items", metavar="N", type=click.IntRange(1), default=50, show_default=True, help="Pairs to label in all."
)
@click.option("--voter", metavar="NAME", show_default="your login name", help="Whose labels they are.")
@click.option("--seed", metavar="N", type=int, default=0, show_default=True, help="Chooses the pairs and their order.")
def label_pairs(folder: Path, items: int, voter: str | None, seed: int) -> None:
    """Say which of two answers is better, without knowing whose they are.

    A label is stored with the next key, so that u can undo it. Run the same command again to continue. `chaku eval
    judge-check` holds a judge against these labels.
    """
    voter = voter or getpass.getuser()
    run = Run.load(folder)
    pairs = pairs_to_label(run, items, seed)
    if not pairs:
        raise UsageError(f"{folder} has no question with answers of two models")
    path = folder / LABELS_FILE
    with append_only(path) as file:
        labelled = {_key(Comparison.of(orjson.loads(line))) for line in file.lines}
        left = [pair for pair in pairs if (voter, pair[0].id, frozenset(pair[1:])) not in labelled]
        click.echo(f"{len(pairs) - len(left)} of {len(pairs)} pairs are labelled", err=True)
        pending: bytes | None = None
        place = 0
        try:
            while place < len(left):
                _show(run, *left[place], heading=f"{len(pairs) - len(left) + place + 1} of {len(pairs)}")
                pressed = click.getchar().lower()
                if pressed == "u" and pending is not None:
                    place, pending = place - 1, None
                    continue
                if pending is not None:
                    file.add(pending)
                    pending = None
                if pressed in _END:
                    break
                if pressed in _KEYS:
                    pending = _label(*left[place], voter, _KEYS[pressed]).line()
                place += pressed in _KEYS or pressed == _SKIP
        finally:
            if pending is not None:
                file.add(pending)
    click.echo(f"labels are in {path}", err=True)


def pairs_to_label(run: Run, items: int, seed: int) -> list[tuple[Question, str, str]]:
    """Questions with two contestants in the order to show, chosen by the seed; spread over questions first."""
    chance = random.Random(seed)  # noqa: S311 - no secret
    answered = {(answer.question_id, answer.model) for answer in run.answers if not answer.error and answer.sample == 0}
    by_question: list[list[tuple[Question, str, str]]] = []
    for question in run.questions.values():
        names = [name for name in run.manifest.model_names if (question.id, name) in answered]
        pairs = []
        for pair in combinations(names, 2):
            first, second = chance.sample(pair, 2)
            pairs.append((question, first, second))
        chance.shuffle(pairs)
        by_question.append(pairs)
    chance.shuffle(by_question)
    rounds = zip_longest(*by_question)
    return [pair for row in rounds for pair in row if pair is not None][:items]


def _show(run: Run, question: Question, first: str, second: str, *, heading: str) -> None:
    """Print the question and both answers, without names."""
    click.clear()
    click.secho(heading, bold=True)
    answers = [run.answer_of(question.id, name) for name in (first, second)]
    for number, turn in enumerate(question.turns):
        click.secho("\nQuestion", bold=True)
        click.echo(clean(turn))
        for title, answer in zip(("First answer", "Second answer"), answers, strict=True):
            click.secho(f"\n{title}", bold=True)
            click.echo(clean(answer.turns[number]) if answer and number < len(answer.turns) else "(none)")
    click.secho(f"\n{_ASKED}", bold=True)


def _label(question: Question, first: str, second: str, voter: str, outcome: Outcome) -> Comparison:
    return Comparison(
        source="human",
        model_a=first,
        model_b=second,
        outcome=outcome,
        prompt_id=question.id,
        cluster=question.id,
        category=question.category,
        turn=len(question.turns),
        voter=voter,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def _key(label: Comparison) -> tuple[str | None, str | None, frozenset[str]]:
    return label.voter, label.prompt_id, frozenset((label.model_a, label.model_b))
