"""Reading weights of every kind and writing safetensors: the same values, one tensor at a time."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from chaku.errors import ModelError
from chaku.weights.place import TensorMetadata, metadata_of
from chaku.weights.shards import write_tensors
from chaku.weights.tensors import open_tensors


def same(first, second):
    return first.dtype == second.dtype and first.shape == second.shape and torch.equal(bits(first), bits(second))


def bits(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


@pytest.fixture
def state():
    generator = torch.Generator().manual_seed(1)
    return {
        "half": torch.randn(5, 7, generator=generator).half(),
        "brain": torch.randn(3, generator=generator).bfloat16(),
        "full": torch.randn(2, 3, 4, generator=generator),
        "number": torch.tensor(7),
        "empty": torch.empty(0, 3),
        "mask": torch.tensor([True, False]),
        "nan": torch.tensor([float("nan"), -0.0, float("inf")]),
    }


@pytest.mark.parametrize("kind", ["safetensors", "zip", "legacy"])
def test_every_kind_of_file_gives_the_same_tensors(tmp_path, state, kind):
    if kind == "safetensors":
        save_file(state, tmp_path / "model.safetensors")
    else:
        torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=kind == "zip")
    tensors = open_tensors(tmp_path)
    assert set(tensors.names) == set(state)
    for name, tensor in state.items():
        assert tensors.metadata(name) == metadata_of(tensor)
        assert same(tensors.load(name), tensor)


def test_a_bin_keeps_views_and_ties(tmp_path):
    whole = torch.arange(24.0).reshape(4, 6)
    state = {"whole": whole, "tied": whole, "column": whole.t(), "part": whole[1:3, 2:4]}
    torch.save(torch.nn.ParameterDict(state).state_dict(), tmp_path / "pytorch_model.bin")
    tensors = open_tensors(tmp_path)
    assert all(same(tensors.load(name), value) for name, value in state.items())
    assert tensors.aliases("whole") == ["tied"]
    assert tensors.aliases("part") == []


@pytest.mark.parametrize("shard_bytes", [10**9, 150, 1])
def test_what_is_written_is_read_by_safetensors_itself(tmp_path, state, shard_bytes):
    planned = {name: metadata_of(tensor) for name, tensor in state.items()}
    files = write_tensors(tmp_path, planned, state.__getitem__, shard_bytes=shard_bytes, notes={"a": "b"})
    read = {name: tensor for file in files for name, tensor in load_file(file).items()}
    assert set(read) == set(state)
    assert all(same(read[name], tensor) for name, tensor in state.items())
    assert open_tensors(tmp_path).notes == {"format": "pt", "a": "b"}
    if len(files) > 1:
        index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
        assert set(index["weight_map"].values()) == {file.name for file in files}
        assert index["metadata"]["total_size"] == sum(metadata.num_bytes for metadata in planned.values())


def test_a_tensor_that_is_not_as_planned_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"a became F32 \[2\]; planned was F16 \[2\]"):
        write_tensors(tmp_path, {"a": TensorMetadata((2,), "F16")}, lambda _: torch.zeros(2))


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_file_that_is_cut_off_is_named_with_the_tensor(tmp_path, kind):
    path = tmp_path / f"model.{kind}"
    if kind == "safetensors":
        save_file({"first": torch.zeros(100), "second": torch.zeros(100)}, path)
    else:
        torch.save({"first": torch.zeros(100), "second": torch.zeros(100)}, path, _use_new_zipfile_serialization=False)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ModelError, match=r"model\.\w+ is cut off inside (first|second)"):
        open_tensors(path)


def test_a_tensor_that_only_the_index_names_is_missed(tmp_path):
    save_file({"a": torch.zeros(1)}, tmp_path / "one.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "one.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match="the index names b, which no shard holds"):
        open_tensors(tmp_path)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dtype": "F32", "shape": [-2, -2], "data_offsets": [0, 16]}, "said to have the shape"),
        ({"dtype": "F32", "shape": [2], "data_offsets": [0, 16]}, r"a is said to be F32 \[2\] in 16 bytes"),
        ({"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}, "a is of dtype F4; known are"),
        ({"shape": [2]}, "no readable safetensors header"),
    ],
)
def test_a_header_that_cannot_be_is_told(tmp_path, entry, message):
    header = json.dumps({"a": entry}).encode()
    path = tmp_path / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(16))
    with pytest.raises(ModelError, match=message):
        open_tensors(tmp_path)


def test_a_missing_shard_is_named(tmp_path):
    (tmp_path / "model.safetensors.index.json").write_text('{"weight_map": {"a": "model-00001-of-00001.safetensors"}}')
    with pytest.raises(ModelError, match=r"names model-00001-of-00001\.safetensors, which is missing"):
        open_tensors(tmp_path)
