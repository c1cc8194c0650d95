"""The tensors of torch's `.bin` files: torch maps the archives; plain pickles from before torch 1.6 are read here."""

from __future__ import annotations

import pickle
import re
import warnings
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaku.errors import ModelError
from chaku.weights.pickles import PickleRefused, StridedTensor, read_pickle
from chaku.weights.place import DTYPES, NAMES, MappedTensor, Place, TensorMetadata

if TYPE_CHECKING:
    import torch

_STORAGE_DTYPES = {
    **{"DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16"},
    **{"LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8"},
    **{"ByteStorage": "U8", "BoolStorage": "BOOL"},
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_REASON = re.compile(r"(?:Trying to load unsupported|Unsupported) (?:(?! was not an allowed global)[^\n])*")


def checkpoint_places(path: Path) -> dict[str, Place | MappedTensor]:
    """The tensors of one file. Raises ModelError when it is damaged or holds anything but tensors."""
    if zipfile.is_zipfile(path):
        return {name: MappedTensor(path, tensor) for name, tensor in _mapped(path).items()}
    return {**_legacy_places(path)}


def _mapped(path: Path) -> dict[str, torch.Tensor]:
    """What torch reads: values stay in the file until they are used, and only tensors are ever built."""
    import torch

    try:
        with warnings.catch_warnings(action="ignore"):  # of other pickle protocols: they are read or refused
            state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = _REASON.search(str(error))
        raise PickleRefused(
            f"{path} is not read: {reason[0] if reason else str(error).splitlines()[0]}",
            fix="take the model as safetensors, or from a source you trust",
        ) from error
    except (RuntimeError, ValueError, KeyError, TypeError, IndexError, EOFError, AssertionError) as error:
        raise ModelError(
            f"{path} is damaged ({(str(error).splitlines() or [type(error).__name__])[0]})", fix="fetch the file again"
        ) from error
    table: dict[str, torch.Tensor] = _table(path, state, torch.Tensor)
    for name, tensor in table.items():
        if str(tensor.dtype).removeprefix("torch.") not in NAMES:
            raise ModelError(f"{path}: {name} is of dtype {tensor.dtype}; known are {', '.join(DTYPES)}")
    return table


def _legacy_places(path: Path) -> dict[str, Place]:
    with path.open("rb") as file:
        if read_pickle(file, path) != _LEGACY_MAGIC:
            raise ModelError(f"{path} is not a file of torch's")
        read_pickle(file, path)  # protocol version
        machine = read_pickle(file, path)
        if not machine.get("little_endian", False):
            raise ModelError(f"{path} was written on a big-endian machine", fix="save it again on a little-endian one")
        state = read_pickle(file, path)
        keys = read_pickle(file, path)
        sizes = {t.storage.key: DTYPES[_dtype(path, t)][1] for t in _tensors(path, state).values()}
        starts = {}
        for key in keys:
            if key not in sizes:
                raise ModelError(f"{path} holds a storage that no tensor uses, of unknown size")
            num_bytes = int.from_bytes(file.read(8), "little") * sizes[key]
            starts[key] = (file.tell(), num_bytes)
            file.seek(num_bytes, 1)
    return _places(path, state, starts)


def _tensors(path: Path, state: Any) -> dict[str, StridedTensor]:
    return _table(path, state, StridedTensor)


def _table(path: Path, state: Any, kind: type[Any]) -> dict[str, Any]:
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ModelError(f"{path} holds a {type(state).__name__}, not a table of tensors")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, kind):
            raise ModelError(f"{path}: {name!r} is a {type(tensor).__name__}, not a tensor")
    return state


def _dtype(path: Path, tensor: StridedTensor) -> str:
    if tensor.storage.kind not in _STORAGE_DTYPES:
        raise ModelError(f"{path} holds a {tensor.storage.kind}; known are {', '.join(_STORAGE_DTYPES)}")
    return _STORAGE_DTYPES[tensor.storage.kind]


def _places(path: Path, state: Any, starts: dict[str, tuple[int, int]]) -> dict[str, Place]:
    places, file_bytes = {}, path.stat().st_size
    for name, tensor in _tensors(path, state).items():
        dtype = _dtype(path, tensor)
        if tensor.storage.key not in starts:
            raise ModelError(f"{path}: the values of {name} are missing", fix="fetch the file again")
        start, storage_bytes = starts[tensor.storage.key]
        offset_bytes = tensor.offset * DTYPES[dtype][1]
        metadata = TensorMetadata(tensor.shape, dtype)
        strides = None if tensor.strides == _row_by_row(tensor.shape) else tensor.strides
        place = Place(path, start + offset_bytes, metadata, strides)
        if offset_bytes + place.span_bytes > storage_bytes or start + storage_bytes > file_bytes:
            raise ModelError(f"{path} is cut off inside {name}", fix="fetch the file again")
        places[name] = place
    return places


def _row_by_row(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.insert(0, step)
        step *= size
    return tuple(strides)
