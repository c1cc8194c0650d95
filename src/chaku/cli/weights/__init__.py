"""`chaku weights`: the table of its sub-commands, one module each; none is imported before it runs."""

from __future__ import annotations

import click

from chaku.cli.lazy import LazyGroup

COMMANDS = {
    "merge": ("chaku.cli.weights.merge:merge", "Merge a LoRA adapter into its base."),
    "convert": ("chaku.cli.weights.convert:convert", "Write a model in another dtype, sharding or layout."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def weights() -> None:
    """Deltas and conversions of a model's weights: files in, files out, one tensor at a time."""
