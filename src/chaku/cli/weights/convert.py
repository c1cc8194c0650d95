"""`chaku weights convert`: another dtype, sharding or layout."""

from __future__ import annotations

from pathlib import Path

import click

from chaku.cli.help_page import command
from chaku.cli.progress.passes import passing
from chaku.cli.weights.gguf import convert_to_gguf
from chaku.cli.weights.options import FOLDER, output_option, overwrite_option, shard_option
from chaku.cli.weights.readable import readable
from chaku.errors import UsageError
from chaku.packages import needs
from chaku.weights.convert import convert as convert_weights
from chaku.weights.paddle import to_paddle


@command()
@click.argument("model", type=FOLDER)
@output_option
@click.option(
    "--to",
    type=click.Choice(["safetensors", "gguf", "paddle"]),
    default="safetensors",
    show_default=True,
    help="Layout: a folder of transformers', a file for llama.cpp, or a folder of PaddleNLP's.",
)
@click.option(
    "--dtype", show_default="as they are", type=click.Choice(["f32", "f16", "bf16"]), help="What the weights become."
)
@click.option(
    "--quant",
    show_default="q8_0",
    type=click.Choice(["f32", "f16", "bf16", "q8_0", "q4_0"]),
    help="Number format of a GGUF.",
)
@click.option("--progress-fd", type=int, hidden=True, help="Write lines of bytes done and in all there.")
@shard_option
@click.option(
    "--processor",
    metavar="FOLDER",
    type=FOLDER,
    help="With --to paddle: preprocessor_config.json, or a folder of train/, eval/.",
)
@overwrite_option
@needs("train")
def convert(
    model: Path,
    output: Path,
    to: str,
    dtype: str | None,
    quant: str | None,
    progress_fd: int | None,
    shard_bytes: int,
    processor: Path | None,
    overwrite: bool,
) -> None:
    """Write MODEL, a folder with safetensors, .bin or Paddle's .pdparams, in another dtype, sharding or layout.

    With --to gguf the output is one file for llama.cpp; MODEL may also be an adapter, a run, or a .gguf to requantise.
    MODEL may be RUN/checkpoints/step-N too, or the name of a pulled model.
    """
    if processor is not None:
        _check_processor(processor, to)
    if to == "gguf" and dtype is not None:
        raise UsageError("--dtype is for safetensors", fix="a GGUF takes --quant")
    if to != "gguf" and quant is not None:
        raise UsageError("--quant is for GGUF files", fix="add --to gguf, or take --dtype")
    with readable(model, as_gguf=to == "gguf") as source:
        if to == "gguf":
            convert_to_gguf(source, output, quant, overwrite=overwrite, progress_fd=progress_fd)
            return
        with passing(f"converting {model.name}") as watch:
            if to == "paddle":
                files = to_paddle(source, output, dtype=dtype, processor=processor, overwrite=overwrite, watch=watch)
            else:
                shards = convert_weights(
                    source, output, dtype=dtype, shard_bytes=shard_bytes, overwrite=overwrite, watch=watch
                )
                files = [shard.name for shard in shards]
        click.echo(f"{output}: {', '.join(files)}")


def _check_processor(processor: Path, to: str) -> None:
    if to != "paddle":
        raise UsageError("--processor is only part of PaddleNLP's layout", fix="add --to paddle")
    if not processor.exists():
        raise UsageError(f"there is no {processor}", fix="give a preprocessor_config.json, or a folder with two")
