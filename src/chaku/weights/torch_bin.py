"""Where the tensors lie in torch's `.bin` files: in the zip archive, or in the plain pickles from before torch 1.6."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from chaku.errors import ModelError
from chaku.weights.pickles import StridedTensor, read_pickle
from chaku.weights.place import DTYPES, Place, TensorMetadata

_STORAGE_DTYPES = {
    **{"DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16"},
    **{"LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8"},
    **{"ByteStorage": "U8", "BoolStorage": "BOOL"},
}
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LOCAL_HEADER_BYTES = 30
_PICKLE_LIMIT_BYTES = 100_000_000


def checkpoint_places(path: Path) -> dict[str, Place]:
    """The tensors of one file. Raises ModelError when it is damaged or holds anything but tensors."""
    if zipfile.is_zipfile(path):
        try:
            return _archive_places(path)
        except zipfile.BadZipFile as error:
            raise ModelError(f"{path} is damaged ({error})", fix="fetch the file again") from error
    return _legacy_places(path)


def _archive_places(path: Path) -> dict[str, Place]:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise ModelError(f"{path} is a zip file without torch's data.pkl")
        if archive.getinfo(pickles[0]).file_size > _PICKLE_LIMIT_BYTES:
            raise ModelError(
                f"{path}: its data.pkl is larger than {_PICKLE_LIMIT_BYTES:,} bytes, so it holds no weights"
            )
        root = pickles[0].removesuffix("data.pkl")
        with archive.open(pickles[0]) as file:
            state = read_pickle(file, path)
        if root + "byteorder" in archive.namelist() and archive.read(root + "byteorder") != b"little":
            raise ModelError(f"{path} was written on a big-endian machine", fix="save it again on a little-endian one")
        starts: dict[str, tuple[int, int]] = {}
        with path.open("rb") as raw:
            for entry in archive.infolist():
                if entry.filename.startswith(root + "data/"):
                    if entry.compress_type != zipfile.ZIP_STORED:
                        raise ModelError(f"{path}: {entry.filename} is compressed", fix="save it again with torch.save")
                    raw.seek(entry.header_offset + 26)
                    lengths = raw.read(4)
                    skipped = int.from_bytes(lengths[:2], "little") + int.from_bytes(lengths[2:], "little")
                    start = entry.header_offset + _LOCAL_HEADER_BYTES + skipped
                    starts[entry.filename.removeprefix(root + "data/")] = (start, entry.file_size)
    return _places(path, state, starts)


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
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise ModelError(f"{path} holds a {type(state).__name__}, not a table of tensors")
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, StridedTensor):
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
