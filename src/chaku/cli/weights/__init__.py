"""`chaku weights`: the table of its sub-commands, one module each; none is imported before it runs."""

from __future__ import annotations

import click

from chaku.cli.lazy import LazyGroup

COMMANDS = {
    "make-delta": ("chaku.cli.weights.delta:make_delta", "Write what turns one model into another."),
    "apply-delta": ("chaku.cli.weights.delta:apply_delta", "Turn a base model and a delta into the target model."),
    "merge": ("chaku.cli.weights.merge:merge", "Merge a LoRA adapter into its base."),
    "quality": ("chaku.cli.weights.quality:quality", "Say what a quantisation costs, on a text."),
    "convert": ("chaku.cli.weights.convert:convert", "Write a model in another dtype, sharding or layout."),
    "plan": ("chaku.cli.weights.plan:plan", "Lay a model out on GPUs: does it fit, how, and what is left."),
    "card": ("chaku.cli.weights.card:card", "Write a model card from a run's manifest."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def weights() -> None:
    """Deltas, conversions, plans and cards: files in, files out, one tensor at a time."""
