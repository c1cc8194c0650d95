"""The ledger: what became of every conversation at every stage, and the law that nothing gets lost.

At each stage: in + expanded = kept + dropped. `in` is counted where conversations enter, `expanded` where one becomes
several, kept and dropped where the decision falls; they are compared at the end of every stage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaku.chat.messages import Conversation

if TYPE_CHECKING:
    import pyarrow as pa


class LawBroken(AssertionError):
    """A stage lost or invented conversations: our own mistake, never the input's."""


@dataclass(frozen=True, slots=True)
class Flag:
    """A rule that was seen and did not drop. `score` is in the rule's own unit."""

    rule: str
    score: float | None = None
    note: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """What one stage decided on one conversation (or on one of those that it became)."""

    id: str
    kept: Conversation | None
    """None: dropped, for `rule`."""
    rule: str | None = None
    score: float | None = None
    note: str | None = None
    flags: tuple[Flag, ...] = ()
    source_id: str | None = None
    """The id that the conversation came with, where it had one."""


@dataclass
class StageCounts:
    """Sums for one stage."""

    entered: int = 0
    expanded: int = 0
    kept: int = 0
    dropped: int = 0
    seconds: float = 0.0
    """CPU-side wall time, all processes together. Never stored in a built set."""
    drops: Counter[str] = field(default_factory=Counter)
    flags: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    """Other quantities that a stage counts, such as tokens."""

    def check(self, stage: str) -> None:
        """Raise LawBroken unless in + expanded = kept + dropped."""
        if self.entered + self.expanded != self.kept + self.dropped:
            raise LawBroken(
                f"{stage}: in {self.entered} + expanded {self.expanded}"
                f" is not kept {self.kept} + dropped {self.dropped}"
            )

    def add(self, other: StageCounts) -> None:
        """Sum up, shard by shard."""
        for name in ("entered", "expanded", "kept", "dropped", "seconds"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.drops.update(other.drops)
        self.flags.update(other.flags)
        self.sums.update(other.sums)

    def to_json(self, *, with_seconds: bool = False) -> dict[str, Any]:
        """Plain numbers, rules sorted by name."""
        json: dict[str, Any] = {
            "in": self.entered, "expanded": self.expanded, "kept": self.kept, "dropped": self.dropped,
            "drops": dict(sorted(self.drops.items())), "flags": dict(sorted(self.flags.items())),
            "sums": dict(sorted(self.sums.items())),
        }  # fmt: skip
        return {**json, "seconds": self.seconds} if with_seconds else json

    @classmethod
    def from_json(cls, json: dict[str, Any]) -> StageCounts:
        """Read what to_json wrote."""
        return cls(
            json["in"], json["expanded"], json["kept"], json["dropped"], json.get("seconds", 0.0),
            Counter(json["drops"]), Counter(json["flags"]), Counter(json["sums"]),
        )  # fmt: skip


def schema() -> pa.Schema:
    """Columns of a ledger file."""
    import pyarrow as pa

    word = pa.dictionary(pa.int32(), pa.string())
    flag = pa.struct([("rule", pa.string()), ("score", pa.float32()), ("note", pa.string())])
    return pa.schema(
        [
            ("stage", word), ("id", pa.string()), ("parent", pa.string()), ("source_id", pa.string()),
            ("decision", word), ("rule", word), ("score", pa.float32()), ("note", pa.string()),
            ("flags", pa.list_(flag)),
        ]
    )  # fmt: skip


class Ledger:
    """One shard's rows and counts, by stage."""

    def __init__(self) -> None:
        self.counts: dict[str, StageCounts] = {}
        self._rows: dict[str, list[tuple[Any, ...]]] = {}

    def stage(self, name: str) -> StageCounts:
        """The counts of a stage, from now on part of the shard even when nothing passes."""
        self._rows.setdefault(name, [])
        return self.counts.setdefault(name, StageCounts())

    def record(self, stage: str, parent: str, decisions: Iterable[Decision]) -> Iterator[Conversation]:
        """Enter the decisions on ONE conversation; yields what is kept."""
        counts, rows = self.stage(stage), self._rows[stage]
        counts.entered += 1
        num_decisions = 0
        for decision in decisions:
            num_decisions += 1
            for flag in decision.flags:
                counts.flags[flag.rule] += 1
            flags = [{"rule": flag.rule, "score": flag.score, "note": flag.note} for flag in decision.flags]
            is_kept = decision.kept is not None
            rows.append(
                (
                    decision.id, parent if parent != decision.id else None, decision.source_id or None,
                    "kept" if is_kept else "dropped", decision.rule, decision.score, decision.note, flags,
                )
            )  # fmt: skip
            if decision.kept is not None:
                counts.kept += 1
                yield decision.kept
            else:
                assert decision.rule is not None, f"{stage} dropped {decision.id} without a rule"
                counts.dropped += 1
                counts.drops[decision.rule] += 1
        counts.expanded += max(num_decisions - 1, 0)

    def write(self, folder: Path) -> None:
        """One Parquet file a stage."""
        import pyarrow as pa
        import pyarrow.parquet as parquet

        shape = schema()
        for stage, rows in self._rows.items():
            columns = list(zip(*rows, strict=True)) or [()] * (len(shape) - 1)
            arrays = [pa.array([stage] * len(rows), shape.field(0).type)]
            arrays += [pa.array(column, field.type) for column, field in zip(columns, list(shape)[1:], strict=True)]
            parquet.write_table(pa.Table.from_arrays(arrays, schema=shape), folder / f"{stage}.parquet")


def merge(parts: Iterable[Path], target: Path) -> None:
    """Put ledger files of one stage behind one another, one in memory at a time."""
    import pyarrow.parquet as parquet

    with parquet.ParquetWriter(target, schema(), compression="zstd") as writer:
        for part in parts:
            table = parquet.read_table(part)
            if table.num_rows:
                writer.write_table(table.unify_dictionaries())
