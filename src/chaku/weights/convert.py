"""A model in another dtype or sharding, as safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chaku.errors import ModelError
from chaku.weights.folder import copy_side_files, new_folder
from chaku.weights.modelconfig import write_dtype
from chaku.weights.place import FLOATS, TensorMetadata, torch_dtype
from chaku.weights.shards import SHARD_BYTES, Watch, write_tensors
from chaku.weights.tensors import Tensors, open_tensors

if TYPE_CHECKING:
    import torch

_WIDTHS = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
DTYPE_CHOICES = tuple(_WIDTHS)


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
    tensors = open_tensors(source)
    wanted = _WIDTHS[dtype] if dtype else None
    planned = {name: cast_metadata(tensors.metadata(name), wanted) for name in tensors.names}
    with new_folder(output, overwrite=overwrite) as folder:
        files = write_tensors(
            folder, planned, lambda name: load_as(tensors, name, wanted), shard_bytes=shard_bytes, watch=watch
        )
        if wanted:
            write_dtype(source, folder, wanted)
        copy_side_files(source, folder)
    return [output / file.name for file in files]


def cast_metadata(metadata: TensorMetadata, dtype: str | None) -> TensorMetadata:
    """What a tensor becomes when floats are cast to `dtype`."""
    return TensorMetadata(metadata.shape, dtype) if dtype and metadata.dtype in FLOATS else metadata


def load_as(tensors: Tensors, name: str, dtype: str | None) -> torch.Tensor:
    """Load a tensor with its floats cast. Raises ModelError where a finite value becomes infinite."""
    tensor = tensors.load(name)
    if not dtype or tensors.metadata(name).dtype not in (set(FLOATS) - {dtype}):
        return tensor
    cast = tensor.to(torch_dtype(dtype))
    if dtype == "F16" and (num_lost := int((cast.isinf() & ~tensor.isinf()).sum())):
        largest = float(tensor[tensor.isfinite()].abs().max())
        raise ModelError(
            f"{tensors.path}: {num_lost:,} values of {name} reach {largest:.4g}; f16 ends at 65504",
            fix="convert to bf16 or f32 instead",
        )
    return cast
