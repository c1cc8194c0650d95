"""What a server recommends for a model in a chat (sampling, answer limit, system message), where nothing is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chaku.cli.terminal import settings
from chaku.errors import UsageError


@dataclass(frozen=True)
class Suits:
    """`sampling` is what suits the model and is in range; `system` is its system message."""

    sampling: dict[str, settings.Value] = field(default_factory=dict)
    system: str | None = None

    def shown(self, given: Mapping[str, object]) -> str:
        """What is used of it, in a line; "" where a person has chosen everything."""
        used = [f"{name} {value}" for name, value in self.sampling.items() if name not in given]
        return f"{', '.join(used)}: the model's" if used else ""


def recommended(row: Mapping[str, Any]) -> Suits:
    """Read it from a model's row of /v1/models. What is unknown or out of range is left out."""
    suits = row.get("recommended")
    if not isinstance(suits, Mapping):
        return Suits()
    sampling = {}
    for name in settings.SETTINGS.keys() & suits.keys():
        try:
            sampling[name] = settings.parse(name, str(suits[name]))
        except UsageError:
            continue
    ordered = {name: sampling[name] for name in settings.SETTINGS if name in sampling}
    system = suits.get("system")
    return Suits(ordered, system if isinstance(system, str) and system else None)
