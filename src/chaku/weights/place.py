"""What is known about a stored tensor before its values are read: shape, dtype, and where its bytes lie."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaku.errors import ModelError

if TYPE_CHECKING:
    import torch

DTYPES = {
    **{"F64": ("float64", 8), "F32": ("float32", 4), "F16": ("float16", 2), "BF16": ("bfloat16", 2)},
    **{"I64": ("int64", 8), "I32": ("int32", 4), "I16": ("int16", 2), "I8": ("int8", 1)},
    **{"U64": ("uint64", 8), "U32": ("uint32", 4), "U16": ("uint16", 2), "U8": ("uint8", 1), "BOOL": ("bool", 1)},
    **{"F8_E4M3": ("float8_e4m3fn", 1), "F8_E5M2": ("float8_e5m2", 1)},
}
"""safetensors' names of dtypes, used everywhere in this package: torch's name, bytes of one value."""

NAMES = {torch_name: name for name, (torch_name, _) in DTYPES.items()}
FLOATS = ("F32", "F16", "BF16")


@dataclass(frozen=True)
class TensorMetadata:
    """Shape and dtype (a key of DTYPES) of a tensor."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def num_values(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        """Its size without gaps."""
        return self.num_values * DTYPES[self.dtype][1]

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch knows it."""
        return torch_dtype(self.dtype)

    def __str__(self) -> str:
        return f"{self.dtype} {list(self.shape)}"


@dataclass(frozen=True)
class Place:
    """Where a tensor's bytes lie: `offset_bytes` into `file`; `strides` (in values) where they are not row by row.

    Tensors with the same place are one tensor under several names (tied embeddings in a `.bin`).
    """

    file: Path
    offset_bytes: int
    metadata: TensorMetadata
    strides: tuple[int, ...] | None = None

    @property
    def span_bytes(self) -> int:
        """Bytes from the first value to behind the last one."""
        if self.strides is None or not self.metadata.num_values:
            return self.metadata.num_bytes
        last = sum((size - 1) * stride for size, stride in zip(self.metadata.shape, self.strides, strict=True))
        return (last + 1) * DTYPES[self.metadata.dtype][1]


@dataclass(frozen=True, eq=False)
class MappedTensor:
    """A tensor that torch mapped: its values are read from `file` when they are used."""

    file: Path
    tensor: torch.Tensor

    @property
    def metadata(self) -> TensorMetadata:
        """Shape and dtype."""
        return metadata_of(self.tensor)

    def __eq__(self, other: object) -> bool:
        """The same values under another name."""
        return isinstance(other, MappedTensor) and self._where == other._where

    def __hash__(self) -> int:
        return hash(self._where)

    @property
    def _where(self) -> tuple[Any, ...]:
        return self.file, self.tensor.data_ptr(), self.metadata, self.tensor.stride()


def torch_dtype(name: str) -> torch.dtype:
    """The torch dtype of a name in DTYPES."""
    import torch

    dtype = getattr(torch, DTYPES[name][0])
    assert isinstance(dtype, torch.dtype)
    return dtype


def metadata_of(tensor: torch.Tensor) -> TensorMetadata:
    """Shape and dtype of a tensor in memory."""
    return TensorMetadata(tuple(tensor.shape), NAMES[str(tensor.dtype).removeprefix("torch.")])


def load_place(name: str, place: Place | MappedTensor) -> torch.Tensor:
    """Read one tensor. Raises ModelError naming file and tensor when bytes are missing.

    The bytes of a `Place` are read, not mapped: what was read of a file before never counts as this process's memory.
    """
    import torch

    if isinstance(place, MappedTensor):
        return place.tensor.detach().clone(memory_format=torch.contiguous_format)
    buffer = torch.empty(place.span_bytes, dtype=torch.uint8)
    with place.file.open("rb", buffering=0) as file:
        file.seek(place.offset_bytes)
        view, done = buffer.numpy().data, 0
        while done < len(view):
            num_bytes = file.readinto(view[done:])
            if not num_bytes:
                raise ModelError(
                    f"{place.file}: {name} ends after {done:,} of {len(view):,} bytes", fix="fetch the file again"
                )
            done += num_bytes
    values = buffer.view(place.metadata.torch_dtype)
    if place.strides is None:
        return values.reshape(place.metadata.shape)
    return values.as_strided(place.metadata.shape, place.strides).contiguous()
