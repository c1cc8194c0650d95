"""Labels for `eval`: what people said of pairs of answers, out of files of any known form."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from chaku.arena.battle_files import read_battles
from chaku.comparison import Comparison
from chaku.errors import UsageError


def read_labels(paths: Sequence[Path]) -> list[Comparison]:
    """People's votes and a judge's settled verdicts. Raises UsageError for a file with neither."""
    if not paths:
        return []
    reading = read_battles(paths)
    if not reading.comparisons:
        reasons = "; ".join(reading.skipped)
        raise UsageError(
            f"{paths[0]} has no answers, judgements or labels ({reasons})",
            fix="a label needs model_a, model_b and winner",
        )
    if reading.skipped:
        reasons = ", ".join(f"{num:,} x {why}" for why, num in reading.skipped.most_common())
        click.echo(f"left out: {reasons}", err=True)
    return [
        # A label that names nobody is a person's: a judge's verdict has the judge's name.
        game.replaced(source="human") if game.source == "import" else game
        for game in reading.comparisons
    ]
