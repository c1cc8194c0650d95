"""Floats in another dtype, refused where that loses a value altogether."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from chaku.errors import ModelError
from chaku.models.files.modelconfig import read_config, write_config
from chaku.weights import place
from chaku.weights.place import FLOATS, TensorMetadata, torch_dtype
from chaku.weights.tensors import Tensors

if TYPE_CHECKING:
    import torch

DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
"""What a person calls a dtype."""


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


def write_dtype(folder: Path, dtype: str) -> None:
    """Name `dtype` in a folder's config, under the key it has (`torch_dtype` in older ones)."""
    config = read_config(folder)
    if config is not None:
        key = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
        write_config(folder, config | {key: place.DTYPES[dtype][0]})
