"""`chaku weights convert --to gguf`: a file that llama.cpp runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chaku.cli.progress.passes import passing
from chaku.errors import UsageError
from chaku.models.fetch import cache
from chaku.models.fetch.converted import DEFAULT_QUANT
from chaku.models.files.gguf import read_metadata
from chaku.models.plan.memory_plan import gigabytes
from chaku.weights.to_gguf import to_gguf

if TYPE_CHECKING:
    from chaku.weights.shards import Watch


def convert_to_gguf(model: Path, output: Path, quant: str | None, *, overwrite: bool, progress_fd: int | None) -> None:
    """Write MODEL (a folder, or a GGUF to requantise) to the file OUTPUT and say what it became."""
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists", fix="choose another output, or pass --overwrite to replace it")
    if output.is_dir():
        raise UsageError(f"{output} is a folder", fix=f"name the file: -o {output / 'model.gguf'}")

    with cache.writing(output.parent), passing(f"converting {model.name}") as bar:
        notes = to_gguf(model, output, quant or DEFAULT_QUANT, watch=bar if progress_fd is None else _told(progress_fd))
    for note in notes:
        click.echo(f"note: {note}", err=True)
    metadata = read_metadata(output)
    size = f"{gigabytes(metadata.file_bytes)}, {metadata.num_parameters / 1e6:,.0f} M parameters"
    click.echo(f"{output}: {metadata.architecture}, {metadata.quantisation}, {size}")


def _told(descriptor: int) -> Watch:
    """Bytes done and in all as a line of text; for the process that started this one."""

    def tell(done_bytes: int, total_bytes: int) -> None:
        os.write(descriptor, f"{done_bytes} {total_bytes}\n".encode())

    return tell
