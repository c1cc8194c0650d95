"""`chaku weights convert`: another dtype, sharding or layout."""

from __future__ import annotations

from pathlib import Path

import click

from chaku.cli.weights.options import FOLDER, output_option, overwrite_option, require_torch, shard_option
from chaku.cli.weights.progress import drawn
from chaku.errors import UsageError


@click.command()
@click.argument("model", type=FOLDER)
@output_option
@click.option(
    "--to", type=click.Choice(["safetensors", "paddle"]), default="safetensors", show_default=True, help="Layout."
)
@click.option("--dtype", type=click.Choice(["f32", "f16", "bf16"]), help="What the weights become.  [as they are]")
@shard_option
@click.option(
    "--processor", type=FOLDER, help="With --to paddle: preprocessor_config.json, or a folder of train/, eval/."
)
@overwrite_option
def convert(
    model: Path,
    output: Path,
    to: str,
    dtype: str | None,
    shard_bytes: int,
    processor: Path | None,
    overwrite: bool,
) -> None:
    """Write MODEL in another dtype, sharding or layout.

    MODEL is a folder with safetensors, .bin, or PaddleNLP's .pdparams.
    """
    require_torch()
    from chaku.weights.convert import convert as convert_weights
    from chaku.weights.paddle import to_paddle

    if processor is not None:
        if to != "paddle":
            raise UsageError("--processor is only part of PaddleNLP's layout", fix="add --to paddle")
        if not processor.exists():
            raise UsageError(f"there is no {processor}", fix="give a preprocessor_config.json, or a folder with two")
    with drawn(f"converting {model.name}") as watch:
        if to == "paddle":
            files = to_paddle(model, output, dtype=dtype, processor=processor, overwrite=overwrite, watch=watch)
        else:
            shards = convert_weights(
                model, output, dtype=dtype, shard_bytes=shard_bytes, overwrite=overwrite, watch=watch
            )
            files = [shard.name for shard in shards]
    click.echo(f"{output}: {', '.join(files)}")
