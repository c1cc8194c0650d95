"""`chaku weights convert`: another dtype, sharding or layout."""

from __future__ import annotations

from pathlib import Path

import click

from chaku.cli.weights.options import FOLDER, output_option, overwrite_option, require_torch, shard_option
from chaku.cli.weights.progress import drawn


@click.command()
@click.argument("model", type=FOLDER)
@output_option
@click.option("--to", type=click.Choice(["safetensors"]), default="safetensors", show_default=True, help="Layout.")
@click.option("--dtype", type=click.Choice(["f32", "f16", "bf16"]), help="What the weights become.  [as they are]")
@shard_option
@overwrite_option
def convert(model: Path, output: Path, to: str, dtype: str | None, shard_bytes: int, overwrite: bool) -> None:
    """Write MODEL, a folder with weights (safetensors or .bin), in another dtype, sharding or layout."""
    require_torch()
    from chaku.weights.convert import convert as convert_weights

    with drawn(f"converting {model.name}") as watch:
        files = convert_weights(model, output, dtype=dtype, shard_bytes=shard_bytes, overwrite=overwrite, watch=watch)
    click.echo(f"{output}: {len(files)} file{'s' if len(files) > 1 else ''} of weights")
