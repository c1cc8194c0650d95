"""A model's tensors on disk behind one face: safetensors, `.bin`, `.pdparams`; read only when asked.

Writing is in `shards`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaku.errors import ModelError
from chaku.models.files.safetensors_header import read_header
from chaku.weights.paddle_names import paddle_places
from chaku.weights.place import DTYPES, MappedTensor, Place, TensorMetadata, load_place
from chaku.weights.torch_bin import checkpoint_places

if TYPE_CHECKING:
    import torch

_SINGLE = (
    *("model.safetensors", "adapter_model.safetensors", "pytorch_model.bin", "adapter_model.bin"),
    "model_state.pdparams",
)
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json", "model_state.pdparams.index.json")


@dataclass(frozen=True)
class Tensors:
    """The tensors of a model: names and metadata at once, values when asked.

    `notes` is what the safetensors files say about themselves (their `__metadata__`).
    """

    path: Path
    places: Mapping[str, Place | MappedTensor]
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Every tensor's name, in the order of the files."""
        return list(self.places)

    def __contains__(self, name: object) -> bool:
        return name in self.places

    def metadata(self, name: str) -> TensorMetadata:
        """Shape and dtype of a tensor. Raises ModelError where there is none of this name."""
        return self._place(name).metadata

    def load(self, name: str) -> torch.Tensor:
        """Read a tensor into memory of its own. Raises ModelError naming file and tensor."""
        return load_place(name, self._place(name))

    def aliases(self, name: str) -> list[str]:
        """Other names of the same stored values: `.bin` files keep tied tensors once."""
        place = self._place(name)
        return [other for other, its in self.places.items() if its == place and other != name]

    @property
    def num_bytes(self) -> int:
        """Size of all values."""
        return sum(place.metadata.num_bytes for place in self.places.values())

    def _place(self, name: str) -> Place | MappedTensor:
        if name not in self.places:
            raise ModelError(f"{self.path} has no tensor {name!r}")
        return self.places[name]


def open_tensors(path: Path) -> Tensors:
    """The tensors of a model's folder, or of one `.safetensors`, `.bin` or `.pdparams` file.

    PaddleNLP's tensors come under transformers' names and the way round they are there.

    Raises ModelError when there are none, or when a file is damaged, naming it.
    """
    files, promised = _files(path)
    places: dict[str, Place | MappedTensor] = {}
    found: Mapping[str, Place | MappedTensor]
    notes: dict[str, str] = {}
    for file in files:
        if file.suffix == ".safetensors":
            found, file_notes = _safetensors_places(file)
            notes |= file_notes
        elif file.suffix == ".pdparams":
            found = paddle_places(file)
        else:
            found = checkpoint_places(file)
        if twice := places.keys() & found.keys():
            raise ModelError(f"{file}: {min(twice)} is also in {places[min(twice)].file.name}")
        places |= found
    if missing := promised - places.keys():
        raise ModelError(f"{path}: the index names {min(missing)}, which no shard holds", fix="fetch the shards again")
    if not places:
        raise ModelError(f"{path} holds no tensors")
    return Tensors(path, places, notes)


def _files(path: Path) -> tuple[list[Path], set[str]]:
    """The files of weights, and the names of tensors that an index promises."""
    if path.is_file():
        return [path], set()
    if not path.is_dir():
        raise ModelError(f"there is no folder or file {path}", fix="give the folder with config.json and the weights")
    for name in _INDEXES:
        if (path / name).exists():
            return _indexed(path / name)
    for name in _SINGLE:
        if (path / name).exists():
            return [path / name], set()
    # Deltas and hand-made folders come without an index now and then.
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        if found := sorted(path.glob(pattern)):
            return found, set()
    raise ModelError(
        f"{path} holds no weights",
        fix="it should hold model.safetensors, pytorch_model.bin, model_state.pdparams, or shards",
    )


def _indexed(index: Path) -> tuple[list[Path], set[str]]:
    try:
        weight_map = json.loads(index.read_bytes())["weight_map"]
        shards = sorted({str(shard) for shard in weight_map.values()})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{index} is not an index of shards ({error})") from error
    for shard in shards:
        if Path(shard).name != shard:
            raise ModelError(f"{index} names {shard!r}, which is not in its folder")
        if not (index.parent / shard).exists():
            raise ModelError(f"{index} names {shard}, which is missing", fix="fetch the missing shard")
    promised = set() if ".pdparams" in index.name else set(weight_map)  # Paddle's names are not ours
    return [index.parent / shard for shard in shards], promised


def _safetensors_places(path: Path) -> tuple[dict[str, Place], dict[str, str]]:
    header = read_header(path)
    try:
        places = {name: _place(path, name, entry, header.start) for name, entry in header.entries.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} has no readable safetensors header ({error})") from error
    file_bytes = path.stat().st_size
    for name, place in places.items():
        if place.offset_bytes + place.metadata.num_bytes > file_bytes:
            raise ModelError(f"{path} is cut off inside {name}", fix="fetch the file again")
    return places, header.notes


def _place(path: Path, name: str, entry: Mapping[str, Any], start: int) -> Place:
    if entry["dtype"] not in DTYPES:
        raise ModelError(f"{path}: {name} is of dtype {entry['dtype']}; known are {', '.join(DTYPES)}")
    if not all(isinstance(size, int) and size >= 0 for size in entry["shape"]):
        raise ModelError(f"{path}: {name} is said to have the shape {entry['shape']}")
    metadata = TensorMetadata(tuple(entry["shape"]), entry["dtype"])
    first, last = entry["data_offsets"]
    if first < 0 or last - first != metadata.num_bytes:
        raise ModelError(f"{path}: {name} is said to be {metadata} in {last - first:,} bytes")
    return Place(path, start + first, metadata)
