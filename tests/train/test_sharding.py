"""Sharded from the start: one process reads the base, and all hold the very numbers that one alone would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from chaku.errors import ModelError
from chaku.train import sharding
from chaku.train.base import find_base
from chaku.train.config import TrainConfig
from chaku.train.model import Trainee, open_trainee
from chaku.train.parallel import World
from chaku.train.sharding import open_spread
from train import small

CPU = torch.device("cpu")


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{**small.SETTINGS, **changes})


def numbers_of(model: Trainee) -> dict[str, torch.Tensor]:
    held = {name: each.detach() for name, each in model.named_parameters()} | dict(model.named_buffers())
    return {name: getattr(each, "full_tensor", lambda each=each: each)() for name, each in held.items()}


@pytest.mark.parametrize("ties", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize(
    ("number", "changes"),
    [
        (2, {}), (3, {"precision": "bf16"}), (2, {"method": "lora"}), (2, {"method": "lora", "precision": "bf16"}),
        (4, {"rope_scaling": "linear"}),
    ],
    ids=str,
)  # fmt: skip
def test_one_process_reads_and_all_have_the_same_bits(
    tmp_path: Path, number: int, changes: dict[str, Any], ties: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = find_base(str(small.write_base(tmp_path / "base", tie_word_embeddings=ties)))
    row_length = 1500 if "rope_scaling" in changes else 256
    alone = open_trainee(base, config(**changes), row_length, CPU)
    expected = numbers_of(alone)
    assert any("inv_freq" in name for name in expected)
    genuine = sharding.read_causal

    def work(world: World) -> None:
        def read(*args: Any) -> Any:
            assert world.leads, "the base was read by a process that does not lead"
            return genuine(*args)

        monkeypatch.setattr(sharding, "read_causal", read)
        model = open_spread(base, config(**changes), row_length, world)
        found = numbers_of(model)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.equal(found[name], value.float()), name
        assert (model.causal.lm_head.weight is model.causal.model.embed_tokens.weight) == ties
        learn = {name for name, each in model.named_parameters() if each.requires_grad}
        assert learn == {name for name, each in alone.named_parameters() if each.requires_grad}
        shares = [each.to_local() for each in model.parameters()]
        held = sum(each.untyped_storage().nbytes() for each in shares)
        assert held <= 4 * (sum(each.numel() for each in alone.parameters()) / number + 64 * len(shares))

    assert small.together(work, number) == [0] * number


def test_a_base_that_can_not_be_read_is_named_by_all_processes(base: Path, tmp_path: Path) -> None:
    copy = tmp_path / "broken"
    copy.mkdir()
    (copy / "config.json").write_bytes((base / "config.json").read_bytes())

    def work(world: World) -> None:
        with pytest.raises(ModelError, match=r"broken can't be opened"):
            open_spread(find_base(str(copy)), config(), 256, world)

    assert small.together(work, 2) == [0, 0]
