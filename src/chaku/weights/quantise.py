"""Numbers of a GGUF in fewer bits: which type each tensor gets, and a whole file written anew with other types."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from chaku.errors import ModelError, UsageError
from chaku.models.files.gguf import shard_paths
from chaku.records import atomic_path

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from chaku.weights.shards import Watch

    FloatArray: TypeAlias = NDArray[np.float32]

Quant = Literal["f32", "f16", "bf16", "q8_0", "q4_0"]
QUANTS: tuple[str, ...] = get_args(Quant)

_FILE_TYPES: dict[str, int] = {"f32": 0, "f16": 1, "q4_0": 2, "q8_0": 7, "bf16": 32}
_BLOCK = 32
# The embedding and the output matrix decide the probabilities directly; llama.cpp keeps them finer than the rest, too.
_FINE = ("token_embd.weight", "output.weight")
_ALIGNMENT_BYTES = 32


@dataclass(frozen=True)
class PlannedTensor:
    """One tensor of a GGUF before its values are read: `shape` is row-major, as numpy has it."""

    name: str
    shape: tuple[int, ...]
    type_name: str
    """Such as "Q8_0"."""
    load: Callable[[], FloatArray]

    @property
    def num_bytes(self) -> int:
        """Its size in the file."""
        import gguf

        values, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[self.type_name]]
        return math.prod(self.shape) // values * size


def type_of(name: str, shape: tuple[int, ...], quant: str) -> str:
    """The type a tensor gets: vectors stay F32, rows that are not a multiple of 32 stay F16."""
    if len(shape) < 2:
        return "F32"
    if quant in ("q8_0", "q4_0"):
        if shape[-1] % _BLOCK:
            return "F16"
        return "Q8_0" if name in _FINE else quant.upper()
    return quant.upper()


def write_gguf(
    path: Path, writer: Any, tensors: list[PlannedTensor], quant: str, *, watch: Watch | None = None
) -> None:
    """Write the values that `writer` (a gguf.GGUFWriter) holds and the tensors, one in memory at a time, to `path`.

    The file is whole or absent. Raises ModelError for a tensor with values that are not finite in its type.
    """
    import gguf

    writer.add_file_type(_FILE_TYPES[quant])
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    for tensor in tensors:
        kind = gguf.GGMLQuantizationType[tensor.type_name]
        writer.add_tensor_info(tensor.name, tensor.shape, None, tensor.num_bytes, raw_dtype=kind)
    total_bytes = sum(tensor.num_bytes for tensor in tensors)
    done_bytes = 0
    with atomic_path(path) as part, _writing_to(writer, part):
        for tensor in tensors:
            encoded = _encode(tensor, tensor.load())
            writer.write_tensor_data(encoded)
            done_bytes += tensor.num_bytes
            if watch:
                watch(done_bytes, total_bytes)


@contextmanager
def _writing_to(writer: Any, part: Path) -> Iterator[None]:
    """The header is written; the tensors are what comes in the block."""
    writer.write_header_to_file(part)
    try:
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        yield
    finally:
        writer.close()


def _encode(tensor: PlannedTensor, values: FloatArray) -> Any:
    import gguf
    import numpy as np

    if values.shape != tensor.shape:
        raise ModelError(f"{tensor.name} has the shape {values.shape}, not {tensor.shape}")
    if not np.isfinite(values).all():
        raise ModelError(f"{tensor.name} holds values that are not finite", fix="check where the weights come from")
    if tensor.type_name == "F32":
        return np.ascontiguousarray(values)
    if tensor.type_name == "F16":
        if np.abs(values).max(initial=0) > np.finfo(np.float16).max:
            raise ModelError(f"{tensor.name} holds values too large for f16", fix="choose --quant bf16")
        return values.astype(np.float16)
    return gguf.quants.quantize(values, gguf.GGMLQuantizationType[tensor.type_name])


def requantise(source: Path, target: Path, quant: str, *, watch: Watch | None = None) -> None:
    """Write the model in the GGUF `source` (all its shards) to one file `target`, with numbers of another type.

    Everything else it says of itself stays. Raises ModelError for what is not a model; UsageError where the
    source would be overwritten.
    """
    import gguf

    shards = shard_paths(source)
    if target.exists() and any(target.samefile(shard) for shard in shards):
        raise UsageError(f"{target} is the file that is read", fix="give another name with -o")
    readers = [open_gguf(shard) for shard in shards]
    architecture = readers[0].get_field("general.architecture")
    if architecture is None:
        raise ModelError(f"{source} does not say its architecture", fix="choose another file")
    writer = gguf.GGUFWriter(None, str(architecture.contents()))
    _copy_values(readers[0], writer)
    tensors = [
        _planned(tensor.name, tuple(int(size) for size in reversed(tensor.shape)), tensor, quant)
        for reader in readers
        for tensor in reader.tensors
    ]
    write_gguf(target, writer, tensors, quant, watch=watch)


def open_gguf(path: Path) -> Any:
    """A gguf.GGUFReader. Raises ModelError for a file that is none."""
    import gguf

    from chaku.models.files.gguf import read_metadata

    read_metadata(path)  # whose errors are clear; this reader's are not
    return gguf.GGUFReader(path)


def _planned(name: str, shape: tuple[int, ...], tensor: Any, quant: str) -> PlannedTensor:
    import gguf

    def load() -> FloatArray:
        values: FloatArray = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype("float32")
        return values.reshape(shape)

    return PlannedTensor(name, shape, type_of(name, shape, quant), load)


def _copy_values(reader: Any, writer: Any) -> None:
    import gguf

    for field in reader.fields.values():
        name = field.name
        if name.startswith(("GGUF.", "split.")) or name in (
            *("general.architecture", "general.file_type", "general.quantization_version", "general.alignment"),
        ):
            continue
        kind = field.types[0]
        sub_type = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), kind, sub_type=sub_type)
