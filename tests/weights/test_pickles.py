"""A file of weights that wants to run something is refused by the name of what it wants, and nothing runs."""

import io
import os
import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
import torch

from chaku.errors import ModelError
from chaku.weights.pickles import read_pickle
from chaku.weights.tensors import open_tensors


class Calls:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


def in_zip(path, pickled):
    """A file of torch's with another pickle in it."""
    torch.save({}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, pickled if name.endswith("data.pkl") else data)
    return path


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    ("wanted", "name"),
    [
        (Calls(os.system, "touch {}"), "posix.system|op(?:code|erand)"),
        (Calls(eval, "open('{}', 'w')"), "eval|op(?:code|erand)"),
        (Calls(getattr, torch.Size, "mro"), "getattr|op(?:code|erand)"),
        (Calls(torch.load, "{}"), "torch.serialization.load|op(?:code|erand)"),
        (
            np.array([Calls(os.system, "touch {}")], dtype=object),
            "posix.system|multiarray._reconstruct|op(?:code|erand)",
        ),
    ],
)
def test_what_could_run_is_refused_by_name(tmp_path, protocol, wanted, name):
    touched = tmp_path / "touched"
    if isinstance(wanted, Calls):
        wanted = Calls(wanted.called[0], *(a.format(touched) if a == str(a) else a for a in wanted.called[1]))
    pickled = pickle.dumps({"weight": wanted}, protocol=protocol)
    for path in (in_zip(tmp_path / "pytorch_model.bin", pickled), tmp_path / "old.bin"):
        if not path.exists():
            path.write_bytes(pickled)
        with pytest.raises(ModelError, match=name) as refused:
            open_tensors(path)
        assert str(path) in str(refused.value)
    assert not touched.exists()


@pytest.mark.parametrize(
    "pickled",
    [
        b"\x80\x02ctorch\nFloatStorage\n}b.",  # attributes for a class
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)R.",  # a tensor of nothing
        b"\x80\x02ccollections\nOrderedDict\nK\x01R.",  # arguments that are not a tuple
        b"\x80\x02K\x01K\x02s.",  # an item for nothing
        b"\x80\x02h\x07.",  # a memo that was never kept
        b"\x80\x02u.",  # a mark that was never set
        b"\x80\x02}",  # no end
        b"\x80\x02X\xff\xff\xff\x7f",  # 2 GB of text that are not there
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",  # 9 EB of bytes that are not there
        b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\x7f.",  # 9 EB of text
        b"\x80\x02U\x01a.",  # an opcode of Python 2's
        b"",
    ],
)
def test_damaged_pickles_are_told_as_such(tmp_path, pickled):
    with pytest.raises(ModelError, match=r"x\.bin"):
        read_pickle(io.BytesIO(pickled), tmp_path / "x.bin")


def test_a_tensor_outside_its_storage_is_refused(tmp_path):
    state = OrderedDict(a=torch.zeros(4))
    torch.save(state, tmp_path / "pytorch_model.bin")
    with zipfile.ZipFile(tmp_path / "pytorch_model.bin") as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    path = tmp_path / "changed.bin"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data.replace(b"K\x04\x85", b"K\x05\x85") if name.endswith("data.pkl") else data)
    with pytest.raises(ModelError, match=r"changed\.bin is damaged"):
        open_tensors(path)


def test_a_bin_that_holds_something_else_is_named(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="'epoch' is a int, not a tensor"):
        open_tensors(tmp_path)
    torch.save([torch.zeros(1)], tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="holds a list, not a table of tensors"):
        open_tensors(tmp_path)


def test_a_parameter_in_a_module_of_many_kinds_is_read(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    state = module.state_dict(keep_vars=True)  # parameters, a counter, and torch's _metadata
    torch.save(state, tmp_path / "pytorch_model.bin")
    tensors = open_tensors(tmp_path)
    assert all(torch.equal(tensors.load(name), value.detach()) for name, value in state.items())
