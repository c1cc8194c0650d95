"""Compiled, with everything else switched on: the same numbers, and the compiler is called for few shapes.

On CPU this needs a C++ compiler; where there is none, the tests are skipped. Compiling starts threads, so it is done in
forks: other tests fork from this process.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from chaku.train.base import find_base
from chaku.train.batches import Batches, Step
from chaku.train.config import TrainConfig
from chaku.train.log import read_log
from chaku.train.model import Trainee
from chaku.train.parallel import World
from chaku.train.parallelize import open_trainee
from chaku.train.rows import Rows
from train import small

CXX = os.environ.get("CXX", "g++")
pytestmark = [
    pytest.mark.skipif(shutil.which(CXX) is None, reason=f"compiling on CPU needs {CXX}, which is not here"),
    # what torch's compiler does itself, and hides where warnings are not errors
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The distutils package is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"),
]


def let_setuptools_in() -> None:
    """pip, once a test has imported it, keeps setuptools from bringing the distutils that torch's compiler needs."""
    for finder in sys.meta_path:
        if type(finder).__name__ == "DistutilsMetaFinder":
            vars(finder).pop("spec_for_distutils", None)
    for name in [name for name in sys.modules if name.partition(".")[0] == "distutils"]:
        del sys.modules[name]


def num_graphs() -> int:
    """How many graphs this process has compiled so far."""
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


@pytest.mark.prove
def test_a_compiled_run_has_the_numbers_of_a_plain_one(base: Path, small_set: Path, tmp_path: Path) -> None:
    """Ten steps of which each ends with a smaller micro-batch, held-out losses, answers to a prompt."""
    changes: dict[str, Any] = {
        "max_steps": 10, "evaluate_every": 4, "save_every": 100, "activation_checkpointing": "selective",
        "sample_prompts": ["hi"], "sample_every": 5,
    }  # fmt: skip
    plain = small.trained(small.recipe("plain", base, tmp_path, **changes), small_set)
    compiled = tmp_path / "compiled"

    def work() -> None:
        let_setuptools_in()
        small.trained(small.recipe("compiled", base, tmp_path, **changes, compile=True), small_set)
        assert num_graphs() == 2  # with and without a way back, for all layers and steps

    assert small.in_fork(work) == 0
    one, other = small.numbers(plain), small.numbers(compiled)
    np.testing.assert_allclose([row[2:5] for row in one], [row[2:5] for row in other], rtol=1e-4)
    assert [row[-1] for row in one if row[-1]] == pytest.approx([row[-1] for row in other if row[-1]], rel=1e-4)
    said = [
        [line["answer"] for line in read_log(folder / "log.jsonl") if "answer" in line] for folder in (plain, compiled)
    ]
    assert said[0] == said[1] and len(said[0]) == 3


def test_compiled_and_sharded_layers_have_the_gradients_of_plain_ones(base: Path, small_set: Path) -> None:
    every = Rows(small_set, "train")
    rows = [every[number] for number in range(14)]

    def gradients(model: Trainee, step: Step) -> dict[str, Tensor]:
        for batch in step.micro_batches:
            torch.autograd.backward(model.summed_loss(batch)[0] / step.weight)
        learning = {name: each.grad for name, each in model.named_parameters() if each.requires_grad}
        model.zero_grad()
        return {name: each.full_tensor() for name, each in learning.items()}  # type: ignore[union-attr]

    def work(world: World) -> None:
        let_setuptools_in()
        settings = {**small.SETTINGS, "activation_checkpointing": "full"}
        plain = open_trainee(find_base(str(base)), TrainConfig(**settings), 256, world)
        compiled = open_trainee(find_base(str(base)), TrainConfig(**settings, compile=True), 256, world)
        for index in range(2):
            step = Batches(rows, 7, 2, 0, world.rank, world.size, length=256).step(index)
            one, other = gradients(plain, step), gradients(compiled, step)
            assert one.keys() == other.keys()
            for name, value in one.items():
                assert (value - other[name]).norm() <= 1e-4 * value.norm(), name
        assert num_graphs() == 1

    assert small.together(work, 2) == [0, 0]
