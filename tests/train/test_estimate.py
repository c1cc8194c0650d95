"""What a job needs and costs: held against what torch keeps, what peft adds, and what Vicuna is said to have cost."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from torch.utils._python_dispatch import TorchDispatchMode

from chaku.cli.main import root
from chaku.errors import ChakuError
from chaku.models.files.shape import ModelShape, llama_shape
from chaku.models.plan.accelerators import ACCELERATORS
from chaku.models.sources import shape_of
from chaku.train.base import Base
from chaku.train.batches import micro_batch
from chaku.train.config import TrainConfig
from chaku.train.estimate import activation_bytes, job_of_tokens, memory, offer, smallest
from chaku.train.model import Trainee
from chaku.train.parallel import World
from chaku.train.parallelize import open_trainee, parallelize
from chaku.train.prices import Prices, price_file, read_prices
from chaku.train.rows import Rows
from data.made import write_json
from train import small

PRICES = read_prices(price_file())
H100, A100 = ACCELERATORS["H100-80GB"], ACCELERATORS["A100-80GB"]


def chaku(*words: object) -> Result:
    return CliRunner().invoke(root, [str(word) for word in words], catch_exceptions=False)


def llama(num_layers: int) -> tuple[Any, ModelShape]:
    """Wide enough for the terms that grow with the width to show."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260, hidden_size=128, intermediate_size=352, num_hidden_layers=num_layers, num_attention_heads=4,
        num_key_value_heads=4, tie_word_embeddings=True,
    )  # fmt: skip
    shape = llama_shape(
        "small", num_layers=num_layers, width=128, heads=4, feed_forward=352, vocab_size=260, context=2048, tied=True
    )
    return LlamaForCausalLM(config), shape


class MatrixProducts(TorchDispatchMode):
    """Bytes that matrix products and attention return: what selective checkpointing keeps."""

    def __init__(self) -> None:
        super().__init__()
        self.num_bytes = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = operation(*args, **(kwargs or {}))
        if any(name in str(operation) for name in ("aten.mm", "aten.bmm", "scaled_dot_product")):
            answer = out[0] if isinstance(out, tuple) else out
            self.num_bytes += answer.numel() * answer.element_size()
        return out


def kept_bytes(trainee: Trainee, rows: Rows) -> tuple[int, int, int]:
    """Bytes that a forward keeps beside the weights, bytes of matrix products, and how many tokens it saw."""
    batch = micro_batch([dataclasses.replace(rows[0], loss_mask=np.zeros_like(rows[0].loss_mask))])
    weights = {each.untyped_storage().data_ptr() for each in trainee.parameters()}
    kept: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights and storage.nbytes():
            kept[storage.data_ptr()] = storage
        return tensor

    products = MatrixProducts()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), products:
        trainee.summed_loss(batch)
    return sum(storage.nbytes() for storage in kept.values()), products.num_bytes, batch.ids.numel()


@pytest.mark.parametrize("checkpointing", ["none", "selective", "full"])
@pytest.mark.parametrize("way", ["fp32", "autocast", "sharded"])
def test_activations_are_what_torch_keeps_for_the_way_back(small_set: Path, checkpointing: str, way: str) -> None:
    """By the difference of one layer, so that what is outside the layers cancels out."""
    config = TrainConfig(
        precision="fp32" if way == "fp32" else "bf16", activation_checkpointing=checkpointing, micro_rows=1
    )  # type: ignore[arg-type]
    rows, counted, shapes = Rows(small_set, "train"), [], []
    for num_layers in (2, 3):
        causal, shape = llama(num_layers)
        trainee = parallelize(causal, config, World.alone(torch.device("cpu")))
        if way == "sharded":  # as FSDP2 hands weights over
            trainee.to(torch.bfloat16)
            trainee.autocast_to = None
        kept, products, tokens = kept_bytes(trainee, rows)
        counted.append(kept + (products if checkpointing == "selective" else 0))
        shapes.append(shape)
    expected = [activation_bytes(shape, config, sharded=way == "sharded") for shape in shapes]
    layer = counted[1] - counted[0]
    if way == "autocast" and checkpointing == "none":  # bf16 copies of the weights, which memory() reckons with apart
        layer -= 2 * (shapes[1].num_parameters - shapes[0].num_parameters)
    assert layer / tokens == pytest.approx(expected[1] - expected[0], rel=0.1)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_what_learns_is_what_peft_adds(base: Path, method: str) -> None:
    config = TrainConfig(method=method, device="cpu")  # type: ignore[arg-type]
    model = open_trainee(Base("b", base), config, 256, World.alone(torch.device("cpu")))
    real = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    job = job_of_tokens(shape_of(str(base)), config, 1000, 256)
    assert job.num_learning == real


def test_weights_and_their_state_are_spread_over_all_gpus() -> None:
    """16 bytes a parameter: fp32 weight, gradient and two moments."""
    job = job_of_tokens(shape_of("vicuna-7b-v1.1"), TrainConfig(), 100_000_000, 2048)
    eight = memory(job, 8)
    assert eight.weights + eight.gradients + eight.optimiser == pytest.approx(2 * 6_738_415_616)
    assert memory(job, 16).total < eight.total < memory(job, 1).total / 4


def test_a_row_that_is_not_full_costs_less_attention(small_set: Path, base: Path) -> None:
    from chaku.train.estimate import job_of_rows

    rows, shape = Rows(small_set, "train"), shape_of(str(base))
    config = TrainConfig(epochs=2, batch_rows=5)
    job = job_of_rows(shape, config, rows, 256)
    assert job.num_tokens == 2 * sum(len(rows[number].ids) for number in range(len(rows)))
    assert job.document_length < 200
    assert job.flops < job_of_tokens(shape, config, job.num_tokens // 2, 256).flops
    assert job.num_steps == 2 * -(-len(rows) // 5)


@pytest.mark.parametrize(("model", "on_demand", "spot"), [("vicuna-7b-v1.1", 500, 140), ("vicuna-13b-v1.1", 1000, 300)])
def test_vicunas_published_costs_follow_from_their_assumptions(model: str, on_demand: float, spot: float) -> None:
    """70,000 to 91,000 segments padded to 2,048, three epochs, eight A100-80GB, prices of 2023.

    One figure is fitted: 17 % of the arithmetic, which "13B in a day" leaves. Published: about $140 and $300 on spot.
    """
    prices = read_prices(price_file("2023-03"))
    fewest, most = (
        offer(job_of_tokens(shape_of(model), TrainConfig(), segments * 2048, 2048), A100, 8, prices, mfu=0.17)
        for segments in (70_000, 91_000)
    )
    assert fewest.on_demand and most.on_demand and fewest.spot and most.spot
    assert fewest.on_demand[0] / 1.2 < on_demand < most.on_demand[1]
    assert fewest.spot[0] / 1.2 < spot < most.spot[1]


def test_what_does_not_fit_names_what_makes_it_fit() -> None:
    job = job_of_tokens(shape_of("vicuna-7b-v1.1"), TrainConfig(micro_rows=4), 1_000_000, 2048)
    small_gpu = smallest(job, ACCELERATORS["RTX4090"], PRICES)
    assert not small_gpu.fits and small_gpu.hours is None and small_gpu.spot is None
    assert small_gpu.way_out == "micro_rows: 1, activation_checkpointing: full"
    adapters = job_of_tokens(shape_of("vicuna-7b-v1.1"), TrainConfig(method="qlora"), 1_000_000, 2048)
    assert smallest(adapters, ACCELERATORS["RTX4090"], PRICES).fits


def test_gpus_without_nvlink_wait_for_their_links() -> None:
    job = job_of_tokens(shape_of("vicuna-7b-v1.1"), TrainConfig(micro_rows=1), 100_000_000, 2048)
    assert offer(job, ACCELERATORS["L40S"], 8, PRICES).waits_for_links
    assert not offer(job, H100, 8, PRICES).waits_for_links


def test_a_gpu_without_bf16_gets_no_hours() -> None:
    job = job_of_tokens(shape_of("smollm2-135m"), TrainConfig(), 1_000_000, 2048)
    assert offer(job, ACCELERATORS["V100-32GB"], 1, PRICES).hours is None


def test_the_table_of_a_published_model() -> None:
    output = chaku("estimate", "vicuna-7b-v1.1", "--tokens", "100M", "--count", "8").output
    assert "6,738,415,616 parameters" in output and "300,000,000 tokens over 3 epochs: 1,146 steps" in output
    a40, a80 = (line for line in output.splitlines() if line.startswith("8 x A100"))
    assert a40.rstrip().endswith("-") and "$" not in a40  # no price is known, and none is made up
    assert a80.count("$") == 2 and "45%" in a80


def test_own_prices_are_taken_and_a_wrong_name_is_refused(tmp_path: Path) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text("as_of: today\ngpus:\n  H100-80GB: {spot: [1, 1]}\n")
    words = ("estimate", "vicuna-7b-v1.1", "--tokens", "100M", "--gpu", "h100", "--count", "8", "--prices", own)
    result = json.loads(chaku(*words, "--json").output)
    (one,) = result["offers"]
    assert one["on_demand"] is None and one["spot"] == pytest.approx([8 * one["hours"]] * 2)
    assert result["prices_as_of"] == "today"
    own.write_text("as_of: today\ngpus:\n  H100: {spot: [1, 1]}\n")
    with pytest.raises(ChakuError, match="'H100' is not a name in the table: write H100-80GB"):
        chaku(*words)
    own.write_text("as_of: today\ngpus:\n  H200: {spot: [2, 1]}\n")
    with pytest.raises(ChakuError, match="lower price comes first"):
        chaku(*words)
    with pytest.raises(ChakuError, match="is not a price list: name a YAML file, or one of 2023-03, 2026-06"):
        chaku(*words[:-1], "1999-01")


def test_the_printed_price_list_can_be_read_again(tmp_path: Path) -> None:
    own = tmp_path / "prices.yaml"
    own.write_text(chaku("estimate", "--print-prices").output)
    assert isinstance(read_prices(own), Prices) and read_prices(own) == PRICES


def test_a_recipe_is_estimated_from_its_rows_and_a_dry_run_shows_the_same(
    base: Path, small_set: Path, tmp_path: Path
) -> None:
    train = {**small.SETTINGS, "precision": "bf16", "output": str(tmp_path)}
    recipe = write_json(
        tmp_path / "recipe.yaml", {"name": "mine", "base": str(base), "data": str(small_set), "train": train}
    )
    table = chaku("estimate", recipe).output
    assert f"4 epochs: {4 * -(-len(Rows(small_set, 'train')) // 5)} steps of 5 rows of 256" in table
    assert table in chaku("train", recipe, "--dry-run").output


def test_qlora_is_not_spread() -> None:
    with pytest.raises(ChakuError, match="qlora runs in one process, not on 8 GPUs"):
        chaku("estimate", "vicuna-7b-v1.1", "--tokens", "1M", "--set", "train.method=qlora", "--count", "8")


def test_a_model_without_tokens_is_refused() -> None:
    with pytest.raises(ChakuError, match="without a number of tokens"):
        chaku("estimate", "vicuna-7b-v1.1")
    assert "is not a number of tokens" in chaku("estimate", "vicuna-7b-v1.1", "--tokens", "many").output
