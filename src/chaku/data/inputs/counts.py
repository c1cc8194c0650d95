"""What became of each input file: how many records were read in which format, why others were not, what is not used."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from chaku.data.inputs.fields import Imported

_MOST_KINDS = 40
_OTHERS = "other reasons"


@dataclass
class InputCounts:
    """Records of one file: by format, by the reason why they were not read, and keys with text that nobody uses."""

    formats: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)

    @property
    def num_records(self) -> int:
        """Read or not."""
        return self.formats.total() + self.reasons.total()

    def add(self, other: InputCounts) -> None:
        """Sum up, shard by shard."""
        self.formats.update(other.formats)
        for counter, others in ((self.reasons, other.reasons), (self.unused, other.unused)):
            for key, number in others.items():
                counter[key if key in counter or len(counter) < _MOST_KINDS else _OTHERS] += number

    def to_json(self) -> dict[str, dict[str, int]]:
        """Plain numbers, sorted by name."""
        return {name: dict(sorted(getattr(self, name).items())) for name in ("formats", "reasons", "unused")}

    @classmethod
    def from_json(cls, json: Mapping[str, Mapping[str, int]]) -> InputCounts:
        """Read what to_json wrote."""
        return cls(Counter(json["formats"]), Counter(json["reasons"]), Counter(json["unused"]))


class Inputs:
    """The counts of several files, by their number."""

    def __init__(self) -> None:
        self.by_number: defaultdict[int, InputCounts] = defaultdict(InputCounts)

    def read(self, number: int, imported: Imported) -> None:
        """A record was read."""
        self.by_number[number].add(InputCounts(Counter({imported.format: 1}), unused=imported.unused))

    def not_read(self, number: int, reason: str) -> None:
        """A record was not read."""
        self.by_number[number].add(InputCounts(reasons=Counter({reason: 1})))

    def add(self, other: Inputs) -> None:
        """Sum up, shard by shard."""
        for number, counts in other.by_number.items():
            self.by_number[number].add(counts)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers by the file's number."""
        return {str(number): counts.to_json() for number, counts in sorted(self.by_number.items())}

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> Inputs:
        """Read what to_json wrote."""
        inputs = cls()
        for number, counts in json.items():
            inputs.by_number[int(number)] = InputCounts.from_json(counts)
        return inputs


def sentences(entries: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """What a person should know of the files: nothing or not all was read and why, and which text is not used."""
    for entry in entries:
        counts = InputCounts.from_json(entry)
        if not counts.num_records:
            yield f"{entry['name']}: holds no records"
        if counts.reasons:
            (reason, times), others = counts.reasons.most_common(1)[0], len(counts.reasons) - 1
            more = f", and {others} other reasons" if others > 1 else ", and another reason" if others else ""
            first = f"{reason} ({times:,})" if others else reason
            yield (
                f"{entry['name']}: {counts.reasons.total():,} of {counts.num_records:,} records not read: {first}{more}"
            )
        if counts.unused:
            keys = [f"{key} ({times:,})" for key, times in counts.unused.most_common(8)]
            more = ", ..." if len(counts.unused) > 8 else ""
            yield f"{entry['name']}: text that is not used: {', '.join(keys)}{more}"
