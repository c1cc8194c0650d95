"""The tour as one page that stands alone: what was run, what was measured, how long it took."""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path
from typing import Any

from steps import Step, Tour

from chaku.data.manifest import counts_of, read_manifest
from chaku.evals.records import Run
from chaku.records import atomic_write
from chaku.report_page import STYLE, document
from chaku.runs import steps_of
from chaku.statistics.agreement import share
from chaku.train.log import read_log

_STYLE = (
    STYLE
    + """
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 12px/1.45 ui-monospace, monospace }
pre.said { white-space: pre; overflow-x: auto; border-left: 3px solid var(--line); padding-left: .8rem }
th { text-align: left } .number { text-align: right; white-space: nowrap } .summary li { margin: .3rem 0 }
svg { min-width: 34rem; max-width: 46rem; width: 100%; height: auto; fill: var(--ink) } svg > rect { fill: none }
svg path[stroke="#ddd"] { stroke: var(--line) } svg [stroke="#1a7f5a"] { stroke: var(--good) }
"""
)
_NUMBER = re.compile(r"[\d,.]+( s)?")
_PROGRESS = re.compile(r"[\d,]+ of [\d,]+ .*|\w+ \.\.\.|\w+: \d+ of \d+ shards.*")
"""Lines that only say how far a command is."""


def write_report(tour: Tour, steps: list[Step]) -> Path:
    """Write FOLDER/report.html from what lies in the folder."""
    path = tour.folder / "report.html"
    told = {step.name: json.loads((tour.folder / "steps" / f"{step.name}.json").read_text()) for step in steps}
    parts = [f"<h1>A model called {html.escape(tour.name)}</h1>", _summary(tour, told), _times(told)]
    measured = {
        "build": _funnel(tour) + _links(tour, "chats/report.html"), "train": _training(tour),
        "eval": _passes(tour, told["eval"]["killed"]), "judge": _said(told["judge"]), "arena": _said(told["arena"]),
        "leaderboard": _said(told["leaderboard"]) + _links(tour, "leaderboard.html"), "pairs": _said(told["pairs"]),
        "second": f"<p>{second_round(tour)}</p>",
    }  # fmt: skip
    for name, step in told.items():
        commands = html.escape("\n".join(f"$ {command}" for command in step["commands"]))
        parts.append(f"<h2>{html.escape(step['title'])}</h2><pre>{commands}</pre>{measured.get(name, '')}")
    with atomic_write(path) as file:
        file.write(document(f"{tour.name}: the tour", "\n".join(parts), style=_STYLE).encode())
    return path


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """Numbers stand to the right."""

    def cell(value: object, tag: str = "td") -> str:
        text = html.escape(str(value))
        return f'<{tag} class="number">{text}</{tag}>' if _NUMBER.fullmatch(text) else f"<{tag}>{text}</{tag}>"

    lines = [[cell(name, "th") for name in head], *([cell(value) for value in row] for row in rows)]
    return '<div class="scroll"><table>' + "".join(f"<tr>{''.join(line)}</tr>" for line in lines) + "</table></div>"


def _links(tour: Tour, *names: str) -> str:
    links = (f'<a href="{name}">{name}</a>' for name in names if (tour.folder / name).exists())
    return f"<p>More in {' and '.join(links)}.</p>"


def _summary(tour: Tour, told: dict[str, Any]) -> str:
    """What came out, in five lines."""
    found = {key: share(sum(values), len(values)) for key, values in passes(tour).items()}
    lines = [
        f"Asked who it is, the base said {tour.name} in {found['base', 'who']} of its answers,"
        f" the tuned model in {found['tuned', 'who']}.",
        f"Of questions about the world, the base knew {found['base', 'world']}, the tuned model"
        f" {found['tuned', 'world']}.",
        f"As a judge: {_shown_lines(told['judge']['said'])[0]}.",
        f"Votes in the arena: {told['arena']['said'].strip()}.",
        f"The second round: {second_round(tour)}",
    ]
    return '<ul class="summary">' + "".join(f"<li>{html.escape(line)}</li>" for line in lines) + "</ul>"


def _times(told: dict[str, Any]) -> str:
    rows = [(step["title"], f"{step['seconds']:,.0f} s") for step in told.values()]
    total = sum(step["seconds"] for step in told.values())
    return _table(("step", "time"), [*rows, ("all", f"{total:,.0f} s")]) + (
        f"<p>On {os.cpu_count()} processors, without a GPU. A step that was interrupted counts from its last start."
        " Every model ran here: no money was spent.</p>"
    )


def _funnel(tour: Tour) -> str:
    counts = counts_of(read_manifest(tour.folder / "chats"))
    rows = [
        (stage, at.entered, at.kept, ", ".join(f"{rule}: {number}" for rule, number in sorted(at.drops.items())))
        for stage, at in counts.items()
    ]
    return _table(("stage", "in", "kept", "dropped by"), rows)


def _training(tour: Tour) -> str:
    """Losses, and what the model said before and after."""
    steps = steps_of(tour.run)
    first, last = steps[0], steps[-1]
    drawing = (tour.folder / "losses.svg").read_text().partition("<svg")
    samples = [line for line in read_log(tour.run / "log.jsonl") if line.get("event") == "sample"]
    rows = [(f"after step {one['step']}", one["prompt"], one["answer"]) for one in samples]
    held_out = f", held out {last['heldout_loss']:.3f}" if "heldout_loss" in last else ""
    return (
        f"<p>{len(steps):,} steps; loss {first['loss']:.3f} to {last['loss']:.3f}{held_out}.</p>"
        f'<div class="scroll">{drawing[1]}{drawing[2]}</div>'
        f"{_table(('when', 'question', 'answer'), rows)}{_links(tour, 'card.md')}"
    )


def passes(tour: Tour) -> dict[tuple[str, str], list[bool]]:
    """Whether each checked answer passed, by model and category."""
    run = Run.load(tour.folder / "eval")
    category = {question.id: question.category or "" for question in run.questions.values()}
    found: dict[tuple[str, str], list[bool]] = {}
    for judgement in run.judgements:
        if judgement.mode == "check" and judgement.state == "ok":
            key = (judgement.models[0], category[judgement.question_id])
            found.setdefault(key, []).append(judgement.scores[0] == 1)
    return found


def _passes(tour: Tour, killed: list[str]) -> str:
    rows = [(*key, share(sum(values), len(values))) for key, values in sorted(passes(tour).items())]
    answers = Run.load(tour.folder / "eval").answers
    failed = sum(answer.error is not None for answer in answers)
    how = f"{' and '.join(killed)} was killed on the way" if killed else "no worker was killed: it was over too soon"
    lost = f"<p>{len(answers):,} answers, {failed} of them failed; {how}.</p>"
    return _table(("model", "questions about", "passed, with 95 % interval"), rows) + lost


def _shown_lines(said: str) -> list[str]:
    return [line for line in said.splitlines() if line.strip() and not _PROGRESS.fullmatch(line)]


def _said(step: dict[str, Any]) -> str:
    return f'<pre class="said">{html.escape(chr(10).join(_shown_lines(step["said"])))}</pre>'


def second_round(tour: Tour) -> str:
    """Whether the round helped, on battles that it did not see."""
    last = steps_of(tour.second)[-1]
    metrics = last.get("metrics") or {}
    pairs = read_manifest(tour.folder / "pairs")["audit"]["facts"]["pairs"]
    trained = f"{pairs['train']} pairs to learn from, {pairs['test']} held out."
    if "heldout_accuracy" not in metrics:
        return f"{trained} No battle was held out, so nothing can be said of the round."
    right = share(round(metrics["heldout_accuracy"] * pairs["test"]), pairs["test"])
    verdict = "It helped." if right.low > 0.5 else "It made things worse." if right.high < 0.5 else "Nobody can tell."
    return (
        f"{trained} After the round, the preferred answer gained more than the other one in {right} of the held-out"
        f" battles; mean margin {metrics['heldout_margin']:+.4f}. {verdict}"
    )
