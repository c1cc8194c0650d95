"""The funnel of a built set: rows for the terminal, examples for each rule, and one HTML page that asks nobody."""

from __future__ import annotations

import html
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaku.data.ledger import StageCounts
from chaku.data.manifest import counts_of, read_manifest
from chaku.data.rules.table import RULES
from chaku.report_page import STYLE, document

_NUM_DROPS, _NUM_FLAGS = 10, 3
"""Examples of each rule, drawn at random: drops are for a person to judge the rule by."""


@dataclass(frozen=True)
class Example:
    """One conversation that a rule met."""

    id: str
    score: float | None
    note: str | None


@dataclass(frozen=True)
class RuleCount:
    """How often a rule dropped or flagged at a stage."""

    stage: str
    rule: str
    action: str
    number: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Funnel:
    """What `report` shows."""

    manifest: dict[str, Any]
    stages: dict[str, StageCounts]
    rules: tuple[RuleCount, ...]


def read_funnel(folder: Path) -> Funnel:
    """Read a built set's manifest and ledger. Raises UsageError for a folder that holds no set."""
    manifest = read_manifest(folder)
    stages = counts_of(manifest)
    rules = [
        rule
        for stage, counts in stages.items()
        if counts.drops or counts.flags
        for rule in _rules(folder, stage, counts)
    ]
    return Funnel(manifest, stages, tuple(rules))


def _rules(folder: Path, stage: str, counts: StageCounts) -> Iterator[RuleCount]:
    drops, flags = _examples(folder, stage)
    for rule, number in sorted(counts.drops.items(), key=lambda item: (-item[1], item[0])):
        yield RuleCount(stage, rule, "dropped", number, tuple(drops.get(rule, ())))
    for rule, number in sorted(counts.flags.items(), key=lambda item: (-item[1], item[0])):
        yield RuleCount(stage, rule, "flagged", number, tuple(flags.get(rule, ())))


def _examples(folder: Path, stage: str) -> tuple[dict[str, list[Example]], dict[str, list[Example]]]:
    """Some of each rule at random, the same for the same ledger; one batch of it is in memory."""
    import pyarrow.parquet as parquet

    drops, flags = _Sample(_NUM_DROPS), _Sample(_NUM_FLAGS)
    for path in (folder / "ledger").glob(f"*-{stage}.parquet"):
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=["id", "decision", "rule", "score", "note", "flags"]):
                for row in batch.to_pylist():
                    if row["decision"] == "dropped":
                        drops.add(row["rule"], row, row["id"])
                    for flag in row["flags"] or ():
                        flags.add(flag["rule"], flag, row["id"])
    return drops.examples, flags.examples


class _Sample:
    """At most `size` examples of each rule, each as likely as any other (reservoir sampling)."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen: Counter[str] = Counter()
        self.examples: dict[str, list[Example]] = {}
        self.chooser = random.Random(0)  # noqa: S311 (a sample, not a secret)

    def add(self, rule: str, row: dict[str, Any], identity: str) -> None:
        kept = self.examples.setdefault(rule, [])
        self.seen[rule] += 1
        at = len(kept) if len(kept) < self.size else self.chooser.randrange(self.seen[rule])
        if at < self.size:
            kept[at : at + 1] = [Example(identity, row["score"], row["note"])]


def write_page(folder: Path, path: Path) -> None:
    """Write the report as one HTML file: styles and drawings inside, all text escaped, no script."""
    path.write_text(_page(read_funnel(folder)), encoding="utf-8")


_STYLE = """
table{width:100%}th,td{text-align:left;vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}
code,.q{font:13px/1.45 ui-monospace,monospace;overflow-wrap:anywhere}
.q{color:var(--quiet)}.kept{fill:var(--good)}.drop{fill:var(--bad)}svg{width:100%;min-width:8rem;height:1rem}
.ok{color:var(--good)}.no{color:var(--bad)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.2rem 1rem}dd{margin:0;overflow-wrap:anywhere}
@media(max-width:40rem){dl{grid-template-columns:1fr}dt{font-weight:600}dd{margin-bottom:.4rem}}
"""


def _page(funnel: Funnel) -> str:
    title = f"{funnel.manifest['name']}: from raw shares to rows"
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        _facts(funnel.manifest),
        "<h2>Funnel</h2><p>At each stage: in + expanded = kept + dropped.</p>",
        _funnel_table(funnel.stages),
        "<h2>Why</h2>",
        _rules_table(funnel.rules),
        _audit(funnel.manifest.get("audit")),
    ]
    return document(title, "\n".join(parts), style=STYLE + _STYLE)


def _facts(manifest: dict[str, Any]) -> str:
    tokenizer, template = manifest["tokenizer"], manifest["template"]
    facts = {
        "chaku": manifest["chaku"],
        "tokenizer": f"{tokenizer['source']} ({tokenizer['hash'][:12]})" if tokenizer else "none: messages only",
        "template": f"{template['name']} ({template['hash'][:12]})" if template else "none",
        "context": _tokens(manifest["context"]),
        "rows of": _tokens(manifest["pack_length"]),
        "seed": manifest["config"]["seed"],
    }
    for entry in manifest["inputs"]:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in entry["formats"].items()) or "nothing readable"
        facts[entry["name"]] = f"{entry['container']}: {kinds}; sha256 {entry['sha256'][:12]}"
    rows = "".join(f"<dt>{html.escape(key)}</dt><dd>{html.escape(str(value))}</dd>" for key, value in facts.items())
    return f"<dl>{rows}</dl>"


def _tokens(number: int | None) -> str:
    return f"{number:,} tokens" if number else "none"


def _funnel_table(stages: dict[str, StageCounts]) -> str:
    most = max((counts.kept + counts.dropped for counts in stages.values()), default=0) or 1
    rows = []
    for stage, counts in stages.items():
        kept, dropped = 100 * counts.kept / most, 100 * counts.dropped / most
        bar = (
            f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" role="img" aria-label="{counts.kept:,} kept,'
            f' {counts.dropped:,} dropped"><rect class="kept" width="{kept:.3f}" height="10"/>'
            f'<rect class="drop" x="{kept:.3f}" y="3" width="{dropped:.3f}" height="4"/></svg>'
        )
        numbers = "".join(
            f'<td class="n">{number:,}</td>'
            for number in (counts.entered, counts.expanded, counts.kept, counts.dropped)
        )
        rows.append(f"<tr><th>{html.escape(stage)}</th>{numbers}<td>{bar}</td></tr>")
    head = "".join(f'<th class="n">{name}</th>' for name in ("in", "expanded", "kept", "dropped"))
    body = "".join(rows)
    return (
        f'<div class="scroll"><table><thead><tr><th>stage</th>{head}<th>kept (thick), dropped (thin)</th></tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _rules_table(rules: tuple[RuleCount, ...]) -> str:
    rows = []
    for rule in rules:
        examples = "".join(
            f'<div><code>{html.escape(example.id)}</code> <span class="q">{html.escape(shown(example))}</span></div>'
            for example in rule.examples
        )
        meaning = html.escape(RULES[rule.rule].meaning if rule.rule in RULES else "")
        rows.append(
            f"<tr><td>{html.escape(rule.stage)}</td><td><b>{html.escape(rule.rule)}</b><br>{meaning}</td>"
            f'<td>{rule.action}</td><td class="n">{rule.number:,}</td><td>{examples}</td></tr>'
        )
    head = '<tr><th>stage</th><th>rule</th><th></th><th class="n">number</th><th>examples</th></tr>'
    return f'<div class="scroll"><table><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table></div>'


def shown(example: Example) -> str:
    """Score and note of an example in one line."""
    pieces = []
    if example.score is not None:
        pieces.append(f"{example.score:.4g}")
    if example.note:
        pieces.append(" ".join(example.note.split()))
    return " · ".join(pieces)


def _audit(audit: dict[str, Any] | None) -> str:
    if audit is None:
        return ""
    verdict = '<p class="ok">✓ passed</p>' if audit["passed"] else '<p class="no">✗ not fit to train on</p>'
    lines = "".join(f"<li>{kind}: {html.escape(line)}</li>" for kind in ("errors", "warnings") for line in audit[kind])
    facts = "".join(
        f"<dt>{html.escape(key.replace('_', ' '))}</dt><dd>{html.escape(_plain(value))}</dd>"
        for key, value in audit["facts"].items()
    )
    return f"<h2>Audit</h2>{verdict}<ul>{lines}</ul><dl>{facts}</dl>"


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    return f"{value:,}" if isinstance(value, int) else str(value)
