"""`chaku weights merge`: a LoRA into its base."""

from __future__ import annotations

from pathlib import Path

import click

from chaku.cli.help_page import command
from chaku.cli.progress.passes import passing
from chaku.cli.weights.options import FOLDER, output_option, overwrite_option, shard_option
from chaku.packages import needs
from chaku.weights.merge import merge as merge_weights


@command()
@click.argument("base", type=FOLDER)
@click.argument("adapter", type=FOLDER)
@output_option
@shard_option
@overwrite_option
@needs("train")
def merge(base: Path, adapter: Path, output: Path, shard_bytes: int, overwrite: bool) -> None:
    """Write BASE with the peft LoRA in ADAPTER merged in; both are folders."""

    with passing(f"merging {adapter.name}") as watch:
        files = merge_weights(base, adapter, output, shard_bytes=shard_bytes, overwrite=overwrite, watch=watch)
    click.echo(f"{output}: {len(files)} file{'s' if len(files) > 1 else ''} of weights")
