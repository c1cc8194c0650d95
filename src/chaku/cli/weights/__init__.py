"""`chaku weights`: the table of its sub-commands, one module each; none is imported before it runs."""

from __future__ import annotations

import click

from chaku.cli.lazy import LazyGroup

COMMANDS = {
    "make-delta": ("chaku.cli.weights.delta:make_delta", "Write the delta between two models."),
    "apply-delta": ("chaku.cli.weights.delta:apply_delta", "Add a delta to its base model."),
    "merge": ("chaku.cli.weights.merge:merge", "Merge a LoRA adapter into its base."),
    "quality": ("chaku.cli.weights.quality:quality", "Measure on a text what a quantisation costs."),
    "convert": ("chaku.cli.weights.convert:convert", "Write a model in another dtype, sharding or layout."),
    "plan": ("chaku.cli.weights.plan:plan", "Plan how a model fits on GPUs."),
    "card": ("chaku.cli.weights.card:card", "Write a model card from a run's manifest."),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def weights() -> None:
    """Convert, merge, compare and plan weights: files in, files out, one tensor at a time."""
