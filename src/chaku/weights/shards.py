"""Writes tensors as safetensors shards, one tensor in memory at a time."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, TYPE_CHECKING

from chaku.errors import ModelError
from chaku.models.plan.memory_plan import gigabytes
from chaku.weights.place import TensorMetadata, metadata_of

if TYPE_CHECKING:
    import torch

SHARD_BYTES = 5_000_000_000
_ALIGNMENT_BYTES = 8
_PIECE_BYTES = 1 << 24

Watch = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""


def write_tensors(
    folder: Path,
    planned: Mapping[str, TensorMetadata],
    load: Callable[[str], torch.Tensor],
    *,
    shard_bytes: int = SHARD_BYTES,
    notes: Mapping[str, str] | None = None,
    watch: Watch | None = None,
) -> list[Path]:
    """Write `model.safetensors`, or shards and their index, into `folder`; returns the shards.

    `load` is called once for each planned name, in order, and its tensor is let go before the next call. A header needs
    every shape and dtype before the first value, hence the plan. A tensor larger than `shard_bytes` has its own shard.
    Raises ModelError when a tensor is not as planned. Not atomic: write into a `folder.new_folder`.
    """
    shards = split(planned, shard_bytes)
    total_bytes = sum(metadata.num_bytes for metadata in planned.values())
    require_room(folder, total_bytes)
    done_bytes, files, weight_map = 0, [], {}
    for number, names in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05}-of-{len(shards):05}.safetensors"
        with (folder / name).open("wb") as file:
            file.write(_header({name: planned[name] for name in names}, notes or {}))
            for tensor_name in names:
                _write_values(file, tensor_name, planned[tensor_name], load(tensor_name))
                weight_map[tensor_name] = name
                done_bytes += planned[tensor_name].num_bytes
                if watch:
                    watch(done_bytes, total_bytes)
            file.flush()
            os.fsync(file.fileno())
        files.append(folder / name)
    if len(shards) > 1:
        index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return files


def require_room(folder: Path, num_bytes: int) -> None:
    """Raise ModelError where the disk of `folder` has no room for so many bytes."""
    if num_bytes > (free_bytes := shutil.disk_usage(folder).free):
        raise ModelError(
            f"{folder.parent} has {gigabytes(free_bytes)} free; the weights take {gigabytes(num_bytes)}",
            fix="make room, or choose an output on another disk",
        )


def split(planned: Mapping[str, TensorMetadata], shard_bytes: int) -> list[list[str]]:
    """Names shard by shard, in order, each shard as full as it gets."""
    shards: list[list[str]] = []
    filled = 0
    for name, metadata in planned.items():
        if not shards or filled + metadata.num_bytes > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += metadata.num_bytes
    return shards


def _header(planned: Mapping[str, TensorMetadata], notes: Mapping[str, str]) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt", **notes}}
    offset = 0
    for name, metadata in planned.items():
        end = offset + metadata.num_bytes
        entries[name] = {"dtype": metadata.dtype, "shape": list(metadata.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNMENT_BYTES)
    return len(text).to_bytes(8, "little") + text


def _write_values(file: IO[bytes], name: str, planned: TensorMetadata, tensor: torch.Tensor) -> None:
    found = metadata_of(tensor)
    if found != planned:
        raise ModelError(f"{name} became {found}; planned was {planned}")
    for piece in byte_pieces(tensor):
        file.write(piece)


def byte_pieces(tensor: torch.Tensor) -> list[memoryview]:
    """The bytes of a tensor, without a copy where it is contiguous, in pieces a hash or a file takes at once."""
    import torch

    flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
    view = flat.numpy().data
    return [view[start : start + _PIECE_BYTES] for start in range(0, len(view), _PIECE_BYTES)]
