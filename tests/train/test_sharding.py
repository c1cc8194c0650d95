"""Sharded from the start: one process reads the base, and all hold the very numbers that one alone would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from chaku.errors import ModelError
from chaku.train import parallelize
from chaku.train.base import find_base
from chaku.train.batches import Batches
from chaku.train.config import TrainConfig
from chaku.train.model import Trainee
from chaku.train.parallel import World
from chaku.train.parallelize import open_trainee
from chaku.train.placement import replicates_frozen, reshards_after_forward
from chaku.train.rows import Rows
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
    alone = open_trainee(base, config(**changes), row_length, World.alone(CPU))
    expected = numbers_of(alone)
    assert any("inv_freq" in name for name in expected)
    genuine = parallelize.read_causal

    def work(world: World) -> None:
        def read(*args: Any) -> Any:
            assert world.is_rank_zero, "the base was read by a process that does not lead"
            return genuine(*args)

        monkeypatch.setattr(parallelize, "read_causal", read)
        model = open_trainee(base, config(**changes), row_length, world)
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
            open_trainee(find_base(str(copy)), config(), 256, world)

    assert small.together(work, 2) == [0, 0]


def test_a_replicated_base_stays_whole_and_only_adapters_are_sharded(
    base: Path, small_set: Path, tmp_path: Path
) -> None:
    """The same gradients as one process alone, in the dtypes that a GPU would hold."""
    from torch.distributed.tensor import DTensor

    changes: dict[str, Any] = {"method": "lora", "frozen_base": "replicated"}
    rows = [Rows(small_set, "train")[number] for number in range(4)]
    alone = open_trainee(find_base(str(base)), config(**changes), 256, World.alone(CPU))
    step = Batches(rows, 4, 2, 0).step(0)
    for batch in step.micro_batches:
        torch.autograd.backward(alone.summed_loss(batch)[0] / step.weight)
    expected = {name: each.grad for name, each in alone.named_parameters() if each.requires_grad}

    def work(world: World) -> None:
        model = open_trainee(find_base(str(base)), config(**changes), 256, world)
        for name, parameter in model.named_parameters():
            assert isinstance(parameter, DTensor) == parameter.requires_grad, name
        share = Batches(rows, 4, 2, 0, world.rank, world.size).step(0)
        for batch in share.micro_batches:
            torch.autograd.backward(model.summed_loss(batch)[0] / share.weight)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                torch.testing.assert_close(parameter.grad.full_tensor(), expected[name], rtol=1e-4, atol=2e-6)

    assert small.together(work, 2) == [0, 0]


def test_what_stays_gathered_follows_from_a_gpus_memory() -> None:
    lora, full = config(method="lora", precision="bf16"), config(precision="bf16")
    seven, seventy, gpu = 6.7e9, 70e9, 80 * 2**30
    assert replicates_frozen(lora, seven, gpu) and not replicates_frozen(lora, seventy, gpu)
    assert not replicates_frozen(full, seven, gpu) and not replicates_frozen(lora, seven, None)
    assert not reshards_after_forward(full, seven, gpu) and reshards_after_forward(full, seventy, gpu)
    assert reshards_after_forward(full, seven, None)  # processes on a CPU share one memory
    assert not reshards_after_forward(config(reshard_after_forward=False), seventy, gpu)


def test_one_process_through_fsdp_has_bf16_weights_with_fp32_masters(base: Path, small_set: Path) -> None:
    def work(world: World) -> None:
        sharded = World(0, 1, CPU, shards_alone=True)
        model = open_trainee(find_base(str(base)), config(precision="bf16"), 256, sharded)
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        seen = []
        model.causal.model.layers[0].mlp.up_proj.register_forward_hook(
            lambda module, _inputs, _answer: seen.append(module.weight.dtype)
        )
        step = Batches([Rows(small_set, "train")[0]], 1, 1, 0).step(0)
        torch.autograd.backward(model.summed_loss(step.micro_batches[0])[0])
        assert seen == [torch.bfloat16]
        assert {each.grad.dtype for each in model.parameters()} == {torch.float32}

    assert small.together(work, 1) == [0]
