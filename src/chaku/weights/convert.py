"""A model in another dtype or sharding, as safetensors; also out of PaddleNLP's layout."""

from __future__ import annotations

from pathlib import Path

from chaku.weights.cast import DTYPES, cast_metadata, load_as, write_dtype
from chaku.weights.delta_check import check_is_model
from chaku.weights.folder import copy_side_files, new_folder
from chaku.weights.paddle import is_paddle, side_files_from_paddle
from chaku.weights.shards import SHARD_BYTES, Watch, write_tensors
from chaku.weights.tensors import open_tensors


def convert(
    source: Path,
    output: Path,
    *,
    dtype: str | None = None,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> list[Path]:
    """Write `source` (a folder or file of weights) as safetensors into the new folder `output`; returns the shards.

    `dtype` (f32, f16, bf16) is what floating-point tensors become; None keeps them. Other files are copied along, and
    `config.json` names the new dtype. Raises ModelError for a value that f16 can't hold: it would become infinite.
    """
    check_is_model(source)
    tensors = open_tensors(source)
    wanted = DTYPES[dtype] if dtype else None
    planned = {name: cast_metadata(tensors.metadata(name), wanted) for name in tensors.names}
    with new_folder(output, overwrite=overwrite) as folder:
        files = write_tensors(
            folder, planned, lambda name: load_as(tensors, name, wanted), shard_bytes=shard_bytes, watch=watch
        )
        if is_paddle(source):
            side_files_from_paddle(source, folder)
        else:
            copy_side_files(source, folder)
        if wanted:
            write_dtype(folder, wanted)
    return [output / file.name for file in files]
