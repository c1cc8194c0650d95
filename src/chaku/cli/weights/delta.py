"""`chaku weights make-delta` and `apply-delta`."""

from __future__ import annotations

from pathlib import Path

import click

from chaku.cli.help_page import command
from chaku.cli.progress.passes import passes, passing
from chaku.cli.weights.options import FOLDER, output_option, overwrite_option, shard_option
from chaku.cli.weights.readable import readable
from chaku.packages import needs
from chaku.weights.delta import apply_delta as apply
from chaku.weights.delta import make_delta as make


@command()
@click.argument("base", type=FOLDER)
@click.argument("target", type=FOLDER)
@output_option
@click.option(
    "--format",
    type=click.Choice(["xor", "difference"]),
    default="xor",
    show_default=True,
    help="xor is exact; a plain difference rounds, and is what older tools read.",
)
@shard_option
@overwrite_option
@needs("train")
def make_delta(base: Path, target: Path, output: Path, format: str, shard_bytes: int, overwrite: bool) -> None:
    """Write the delta that turns the model BASE into the model TARGET. It is useless without BASE.

    Each is a folder with safetensors or .bin weights, or a name that `chaku pull` knows. Both have one architecture,
    size and dtype.
    """

    with (
        readable(base, as_gguf=False) as base_folder,
        readable(target, as_gguf=False) as target_folder,
        passing("comparing") as watch,
    ):
        made = make(
            base_folder,
            target_folder,
            output,
            format="xor" if format == "xor" else "difference",
            shard_bytes=shard_bytes,
            overwrite=overwrite,
            watch=watch,
        )
    click.echo(f"{output}: {made.format} delta of {made.num_tensors} tensors, {made.num_values:,} values")
    if made.num_added_rows:
        click.echo(f"the vocabulary grows by {made.num_added_rows}; the base counts as zeros there")
    if made.format == "difference":
        share = made.num_inexact / max(made.num_values, 1)
        click.echo(f"{made.num_inexact:,} values ({share:.2%}) will not come back bit for bit; --format xor is exact")


@command()
@click.argument("base", type=FOLDER)
@click.argument("delta", type=FOLDER)
@output_option
@shard_option
@overwrite_option
@needs("train")
def apply_delta(base: Path, delta: Path, output: Path, shard_bytes: int, overwrite: bool) -> None:
    """Write the target model that DELTA makes of the model BASE.

    BASE is a folder, or a name that `chaku pull` knows. DELTA is a folder written by make-delta, or a plain difference
    as published for Vicuna v0 and v1.1.
    """

    with (
        readable(base, as_gguf=False) as base_folder,
        passes("checking the base", "applying") as (watch_check, watch),
    ):
        applied = apply(
            base_folder,
            delta,
            output,
            shard_bytes=shard_bytes,
            overwrite=overwrite,
            watch=watch,
            watch_check=watch_check,
        )
    how = "each as recorded" if applied.is_verified else "a plain difference, which records no hashes to check"
    click.echo(f"{output}: {applied.num_tensors} tensors, {how}")
    if applied.num_added_rows:
        click.echo(f"the vocabulary grew by {applied.num_added_rows}; the base counted as zeros there")
