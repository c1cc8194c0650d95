"""The tour as one page that stands alone: what was run, what was measured, how long it took."""

from __future__ import annotations

import html
import json
from pathlib import Path
from typing import Any

from steps import Step, Tour

from chaku.data.manifest import counts_of, read_manifest
from chaku.evals.records import Run
from chaku.records import atomic_write
from chaku.report_page import STYLE, document
from chaku.runs import steps_of
from chaku.statistics.agreement import share

_STYLE = STYLE + (
    "pre{white-space:pre-wrap;overflow-wrap:anywhere;font:12px/1.45 ui-monospace,monospace}svg{max-width:100%}"
)


def write_report(tour: Tour, steps: list[Step]) -> Path:
    """Write FOLDER/report.html from what lies in the folder."""
    path = tour.folder / "report.html"
    told = {step.name: json.loads((tour.folder / "steps" / f"{step.name}.json").read_text()) for step in steps}
    parts = [f"<h1>A model called {html.escape(tour.name)}</h1>", _times(told)]
    measured = {
        "build": _funnel(tour), "train": _losses(tour), "eval": _passes(tour, told["eval"]["killed"]),
        "judge": _said(told["judge"]), "leaderboard": _said(told["leaderboard"]), "pairs": _said(told["pairs"]),
        "second": _second(tour),
    }  # fmt: skip
    for name, step in told.items():
        commands = html.escape("\n".join(f"$ {command}" for command in step["commands"]))
        parts.append(f"<h2>{html.escape(step['title'])}</h2><pre>{commands}</pre>{measured.get(name, '')}")
    with atomic_write(path) as file:
        file.write(document(f"{tour.name}: the tour", "\n".join(parts), style=_STYLE).encode())
    return path


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    heads = "".join(f"<th>{html.escape(name)}</th>" for name in head)
    body = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><tr>{heads}</tr>{body}</table></div>'


def _times(told: dict[str, Any]) -> str:
    rows = [(step["title"], f"{step['seconds']:,.0f} s") for step in told.values()]
    total = sum(step["seconds"] for step in told.values())
    return _table(("step", "time"), [*rows, ("all", f"{total:,.0f} s")]) + "<p>No money was spent.</p>"


def _funnel(tour: Tour) -> str:
    counts = counts_of(read_manifest(tour.folder / "chats"))
    rows = [
        (stage, at.entered, at.kept, ", ".join(f"{rule}: {number}" for rule, number in sorted(at.drops.items())))
        for stage, at in counts.items()
    ]
    return _table(("stage", "in", "kept", "dropped by"), rows)


def _losses(tour: Tour) -> str:
    steps = steps_of(tour.run)
    first, last = steps[0], steps[-1]
    drawing = (tour.folder / "losses.svg").read_text().partition("<svg")
    return (
        f"<p>{len(steps):,} steps; loss {first['loss']:.3f} to {last['loss']:.3f}, held out"
        f" {last.get('heldout_loss', float('nan')):.3f}.</p>{drawing[1]}{drawing[2]}"
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


def _said(step: dict[str, Any]) -> str:
    return f"<pre>{html.escape(step['said'])}</pre>"


def _second(tour: Tour) -> str:
    """Whether the round helped, on battles that it did not see."""
    last = steps_of(tour.second)[-1]
    metrics = last.get("metrics") or {}
    pairs = read_manifest(tour.folder / "pairs")["audit"]["facts"]["pairs"]
    trained = f"<p>{pairs['train']} pairs to learn from, {pairs['test']} held out."
    if "heldout_accuracy" not in metrics:
        return f"{trained} No battle was held out, so nothing can be said of the round.</p>"
    right = share(round(metrics["heldout_accuracy"] * pairs["test"]), pairs["test"])
    verdict = "It helped." if right.low > 0.5 else "It made things worse." if right.high < 0.5 else "Nobody can tell."
    return (
        f"{trained} After the round, the preferred answer gained more than the other one in {right} of the held-out"
        f" battles; mean margin {metrics['heldout_margin']:+.4f}. {verdict}</p>"
    )
