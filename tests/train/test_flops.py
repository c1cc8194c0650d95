"""Arithmetic of a token, and useful MFU in the log."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from chaku.models.plan.accelerators import recognised
from chaku.train.base import Base
from chaku.train.batches import micro_batch, rows_of_step
from chaku.train.config import TrainConfig
from chaku.train.flops import ModelCost, squared_lengths, train_flops
from chaku.train.log import read_log
from chaku.train.loss import NO_TARGET
from chaku.train.model import cost_of
from chaku.train.parallel import World
from chaku.train.parallelize import open_trainee, parallelize
from chaku.train.rows import Rows
from train import small


def test_a_7b_token_in_2048_costs_what_the_field_reckons() -> None:
    """6N without the embedding = 39.6 GFLOP of weights, 0.8 of them the head's, and 1.6 GFLOP of attention."""
    head = 32_000 * 4096
    llama = ModelCost(6_738_415_616 - 2 * head, 6_738_415_616 - 2 * head, head, True, 32, 4096)
    assert train_flops(llama, 1, 1, 2048) == pytest.approx(41.25e9, rel=1e-3)
    assert train_flops(llama, 1, 0, 2048) == pytest.approx(40.47e9, rel=1e-3)  # a masked token never meets the head


def test_weights_that_do_not_learn_cost_two_thirds() -> None:
    frozen = ModelCost(6_000_000, 0, 90_000, False, 2, 64)
    learning = ModelCost(6_000_000, 6_000_000, 90_000, True, 2, 64)
    assert train_flops(frozen, 100, 60, 0) == pytest.approx(2 / 3 * train_flops(learning, 100, 60, 0))


def test_two_documents_attend_to_less_than_one_of_both() -> None:
    assert squared_lengths(np.array([0, 0, 0, 1])) == 10 < squared_lengths(np.array([0, 0, 0, 0])) == 16


def test_torch_counts_the_same_matrix_products(small_set: Path) -> None:
    """Without attention, whose mask torch does not see. The head is on the trained positions alone."""
    from transformers import LlamaConfig, LlamaForCausalLM

    trainee = parallelize(
        LlamaForCausalLM(
            LlamaConfig(
                vocab_size=260, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                num_key_value_heads=2, tie_word_embeddings=True,
            )
        ),
        TrainConfig(precision="fp32"), World.alone(torch.device("cpu")),
    )  # fmt: skip
    batch = micro_batch([Rows(small_set, "train")[0]])
    num_trained = int((batch.targets != NO_TARGET).sum())
    with FlopCounterMode(display=False) as counter:
        torch.autograd.backward(trainee.summed_loss(batch)[0])
    counted = sum(
        number for operation, number in counter.get_flop_counts()["Global"].items() if "attention" not in str(operation)
    )
    norms = sum(each.numel() for each in trainee.parameters() if each.ndim < 2)
    ours = train_flops(cost_of(trainee), batch.ids.numel(), num_trained, 0)
    assert 0 < num_trained < batch.ids.numel()
    assert counted == ours - 6 * norms * batch.ids.numel()


def test_four_bit_weights_count_as_the_numbers_they_stand_for(base: Path) -> None:
    whole = cost_of(open_trainee(Base("b", base), TrainConfig(device="cpu"), 256, World.alone(torch.device("cpu"))))
    packed = cost_of(
        open_trainee(Base("b", base), TrainConfig(method="qlora", device="cpu"), 256, World.alone(torch.device("cpu")))
    )
    assert packed.num_body == whole.num_body + packed.num_body_learning
    assert 0 < packed.num_body_learning < whole.num_body
    assert packed.num_head == whole.num_head and whole.head_learns and not packed.head_learns


def test_the_log_holds_useful_mfu_where_the_peak_is_known(base: Path, small_set: Path, tmp_path: Path) -> None:
    folder = small.trained(small.recipe("run", base, tmp_path, max_steps=2, peak_tflops=0.01), small_set)
    first, second = (one for one in read_log(folder / "log.jsonl") if "loss" in one)
    rows = Rows(small_set, "train")
    cost = cost_of(open_trainee(Base("b", base), TrainConfig(device="cpu"), 256, World.alone(torch.device("cpu"))))
    for record, step in ((first, 0), (second, 1)):
        numbers = rows_of_step(step, len(rows), small.SETTINGS["batch_rows"], 0)[1]
        pairs = sum(length**2 for number in numbers for length in map(len, _documents(rows[number].doc_ids)))
        flops = train_flops(cost, record["tokens"], record["trained_tokens"], pairs)
        assert record["mfu"] == pytest.approx(flops / record["seconds"] / 1e10, rel=1e-2)


def _documents(doc_ids: np.ndarray) -> list[np.ndarray]:
    return np.split(doc_ids, np.flatnonzero(np.diff(doc_ids)) + 1)


def test_a_cpu_has_no_peak_and_so_no_mfu(base: Path, small_set: Path, tmp_path: Path) -> None:
    folder = small.trained(small.recipe("run", base, tmp_path, max_steps=1), small_set)
    assert all("mfu" not in one for one in read_log(folder / "log.jsonl"))


@pytest.mark.parametrize(
    ("device", "row"),
    [
        ("NVIDIA H100 80GB HBM3", "H100-80GB"), ("NVIDIA A100-SXM4-80GB", "A100-80GB"), ("NVIDIA L4", "L4"),
        ("NVIDIA A100-SXM4-40GB", "A100-40GB"), ("NVIDIA GeForce RTX 4090", "RTX4090"), ("NVIDIA L40S", "L40S"),
        ("Tesla V100-SXM2-32GB", "V100-32GB"), ("NVIDIA H200", "H200"), ("NVIDIA A100 80GB PCIe", "A100-80GB"),
        ("NVIDIA L40", None), ("NVIDIA H100 PCIe", None), ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
    ],
)  # fmt: skip
def test_a_gpu_is_recognised_by_its_drivers_name(device: str, row: str | None) -> None:
    found = recognised(device)
    assert (found and found.name) == row
