"""Paddle's `.pdparams`: a pickle of a dict from names to numpy arrays, bf16 as uint16. One tensor at a time.

Names and layouts are left as they are; what PaddleNLP calls a model's tensors is in `paddle`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from chaku.errors import ModelError
from chaku.weights.pickles import Array, Span, read_pickle
from chaku.weights.place import Place, TensorMetadata
from chaku.weights.shards import Watch, byte_pieces, require_room

if TYPE_CHECKING:
    import torch

_NUMPY_DTYPES = {
    **{"F64": "f8", "F32": "f4", "F16": "f2", "BF16": "u2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1"},
    **{"U8": "u1", "BOOL": "b1"},
}
_DTYPES = {numpy: name for name, numpy in _NUMPY_DTYPES.items()}
_NAME_TABLE = "StructuredToParameterName@@"  # paddle's own names of the parameters, which mean nothing elsewhere
_SPLIT = "UnpackBigParamInfor@@"


def pdparams_places(path: Path) -> dict[str, Place]:
    """Where the tensors of a file lie. Raises ModelError when it holds anything but arrays."""
    with path.open("rb") as file:
        state = read_pickle(file, path)
    if not isinstance(state, dict):
        raise ModelError(f"{path} holds a {type(state).__name__}, not a table of tensors")
    if _SPLIT in state:
        raise ModelError(f"{path} was saved in pieces by pickle protocol 2 or 3", fix=_save_again(path))
    return {name: _place(path, name, value) for name, value in state.items() if name != _NAME_TABLE}


def write_pdparams(
    path: Path,
    planned: Mapping[str, TensorMetadata],
    load: Callable[[str], torch.Tensor],
    *,
    watch: Watch | None = None,
) -> None:
    """Write one file; `load` is called once for each planned name, and its tensor let go before the next call."""
    total_bytes = sum(metadata.num_bytes for metadata in planned.values())
    require_room(path.parent, total_bytes)
    for name, metadata in planned.items():
        if metadata.dtype not in _NUMPY_DTYPES:
            raise ModelError(f"{name} is {metadata.dtype}, which numpy and so .pdparams has not")
    done_bytes = 0
    with path.open("wb") as file:
        file.write(b"\x80\x04}(")
        for name, metadata in planned.items():
            file.write(_text(name))
            _write_array(file, metadata, load(name))
            done_bytes += metadata.num_bytes
            if watch:
                watch(done_bytes, total_bytes)
        file.write(b"u.")
        file.flush()
        os.fsync(file.fileno())


def _place(path: Path, name: object, value: object) -> Place:
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        value = value[1]  # paddle pickles a tensor that is not a parameter with its own name
    if not isinstance(name, str) or not isinstance(value, Array):
        raise ModelError(f"{path}: {name!r} is a {type(value).__name__}, not an array")
    if not isinstance(value.data, Span):
        raise ModelError(f"{path} was saved with pickle protocol 2 or 3", fix=_save_again(path))
    order, code = value.dtype[:-2], value.dtype[-2:]
    if order == ">" or code not in _DTYPES:
        raise ModelError(f"{path}: {name} is an array of {value.dtype}; known are {', '.join(_DTYPES)}")
    metadata = TensorMetadata(value.shape, _DTYPES[code])
    if metadata.num_bytes != value.data.num_bytes:
        raise ModelError(f"{path}: {name} is said to be {metadata} in {value.data.num_bytes:,} bytes")
    strides = _column_by_column(value.shape) if value.fortran else None
    return Place(path, value.data.offset_bytes, metadata, strides)


def _column_by_column(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides, step = [], 1
    for size in shape:
        strides.append(step)
        step *= size
    return tuple(strides)


def _save_again(path: Path) -> str:
    return f"save it again with protocol 4: paddle.save(paddle.load({path.name!r}), {path.name!r})"


def _write_array(file: IO[bytes], metadata: TensorMetadata, tensor: torch.Tensor) -> None:
    """What numpy's own pickle of an array says, under the module name that numpy 1 and 2 both know."""
    file.write(_name("numpy.core.multiarray", "_reconstruct") + _name("numpy", "ndarray"))
    file.write(b"K\x00\x85C\x01b\x87R")
    file.write(b"(K\x01(" + b"".join(b"\x8a\x08" + struct.pack("<q", size) for size in metadata.shape) + b"t")
    file.write(_name("numpy", "dtype") + _text(_NUMPY_DTYPES[metadata.dtype]) + b"\x89\x88\x87R")
    file.write(b"(K\x03" + _text("<" if metadata.num_bytes > metadata.num_values else "|"))
    file.write(b"NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb")
    file.write(b"\x89\x8e" + struct.pack("<Q", metadata.num_bytes))
    for piece in byte_pieces(tensor):
        file.write(piece)
    file.write(b"tb")


def _name(module: str, name: str) -> bytes:
    return _text(module) + _text(name) + b"\x93"


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data
