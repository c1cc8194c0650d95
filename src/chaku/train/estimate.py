"""What a training job needs and costs before anything is rented: memory of a GPU, hours, dollars. Arithmetic only.

Weights and their state are exact; activations follow from what transformers' Llama keeps for the way back, counted in
a test; hours rest on an assumed MFU, which is a guess for some GPUs and said to be one.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

from chaku.models.files.shape import ModelShape
from chaku.models.plan.accelerators import Accelerator
from chaku.models.plan.gpu_plan import RUNTIME_BYTES
from chaku.train.config import TrainConfig
from chaku.train.flops import ModelCost, squared_lengths, train_flops
from chaku.train.placement import compiles, replicates_frozen, reshards_after_forward
from chaku.train.prices import Prices
from chaku.train.rows import RowSource
from chaku.train.schedule import num_steps

OVERHEAD = 1.1
"""Restarts, evaluation, checkpoints and loading, beside the steps themselves."""
USABLE_SHARE = 0.95
"""Of a GPU's memory; the allocator leaves gaps."""
LINK_SHARE = 0.7
"""Of NVLink's rate in one direction that collectives reach."""
PCIE_BYTES_PER_S = 12e9
"""Between GPUs without NVLink, through the host."""
HOST_GPUS = 8
"""Of one machine. The network between machines is not reckoned with."""
_PUBLISHED_MFU = {
    "A100-40GB": 0.45, "A100-80GB": 0.45,  # usual for dense 7 to 13B
    "H100-80GB": 0.37, "H200": 0.37,  # torchtitan, Llama 8B on 8 GPUs, compiled; H200 has the same arithmetic
}  # fmt: skip
_GUESSED_MFU = 0.30
_EAGER_SHARE = 0.7
"""Of a compiled run's MFU that an eager one reaches: a guess until a GPU has been measured."""
_RECOMPUTED = {"none": 1.0, "selective": 1.05, "full": 4 / 3}
"""Arithmetic in all, for each useful one: full checkpointing does the forward twice."""
_NF4_BYTES = 0.5 + 0.127 / 8
"""Of a weight in 4 bits, with scales that are quantised themselves (64 and 256 to a block)."""

_LOOKED_AT = 512


@dataclass(frozen=True)
class Job:
    """A run in numbers. Tokens are those of all epochs, padding not counted."""

    shape: ModelShape
    config: TrainConfig
    num_tokens: int
    num_trained: int
    """Tokens that carry loss: the only ones that meet the head."""
    num_steps: int
    row_length: int
    document_length: float
    """Of the document that a token is in, on average over tokens: what attention costs."""

    @property
    def num_learning(self) -> int:
        """Parameters with a gradient."""
        if self.config.method == "full":
            return self.shape.num_parameters
        adapters = sum(sum(_matrix(self.shape, name)) for name in self.config.lora.targets)
        return self.shape.num_layers * self.config.lora.rank * adapters

    @property
    def flops(self) -> float:
        """Useful arithmetic of the whole run."""
        shape, is_full = self.shape, self.config.method == "full"
        body, head = shape.num_parameters - shape.embedding_parameters, shape.vocab_size * shape.width
        cost = ModelCost(
            num_body=body + (0 if is_full else self.num_learning),
            num_body_learning=body if is_full else self.num_learning,
            num_head=head, head_learns=is_full, num_layers=shape.num_layers, width=shape.width,
        )  # fmt: skip
        return train_flops(cost, self.num_tokens, self.num_trained, self.num_tokens * self.document_length)


def job_of_rows(shape: ModelShape, config: TrainConfig, rows: RowSource, row_length: int) -> Job:
    """The job that a built set makes: its rows, a few hundred of them looked at."""
    looked_at = [rows[number] for number in range(0, len(rows), math.ceil(len(rows) / _LOOKED_AT))]
    num_tokens = sum(len(row.ids) for row in looked_at)
    trained_share = sum(int(row.loss_mask.sum()) for row in looked_at) / num_tokens
    document_length = sum(squared_lengths(row.doc_ids) for row in looked_at) / num_tokens
    tokens = num_tokens / len(looked_at) * len(rows)
    return _job(shape, config, len(rows), tokens, row_length, document_length, trained_share)


def job_of_tokens(shape: ModelShape, config: TrainConfig, num_tokens: int, row_length: int) -> Job:
    """The job that so many tokens in full rows make in each epoch: each row one document, every token trained."""
    return _job(shape, config, math.ceil(num_tokens / row_length), num_tokens, row_length, row_length, 1.0)


def _job(
    shape: ModelShape, config: TrainConfig, num_rows: int, tokens: float, row_length: int, document_length: float,
    trained_share: float,
) -> Job:  # fmt: skip
    steps, whole = num_steps(num_rows, config), config.epochs * math.ceil(num_rows / config.batch_rows)
    num_tokens = round(tokens * config.epochs * steps / whole)
    return Job(shape, config, num_tokens, round(num_tokens * trained_share), steps, row_length, document_length)


@dataclass(frozen=True)
class Memory:
    """Bytes of one GPU at the worst moment."""

    weights: float
    gradients: float
    optimiser: float
    gathered: float
    """Layers brought together from all GPUs, and their gradients before they are spread again."""
    activations: float
    logits: float
    runtime: float = RUNTIME_BYTES

    @property
    def total(self) -> float:
        """All of it."""
        total: float = sum(dataclasses.astuple(self))
        return total


@dataclass(frozen=True)
class Offer:
    """One kind of GPU for a job. Dollars are lowest and highest, None where no price is known."""

    gpu: Accelerator
    count: int
    memory: Memory
    mfu: float
    is_guess: bool
    """Whether the MFU is one, for want of published figures."""
    hours: float | None
    """None where it does not fit or the GPU has no bf16."""
    waits_for_links: bool
    """Whether gathering weights takes longer than computing with them."""
    on_demand: tuple[float, float] | None
    spot: tuple[float, float] | None
    way_out: str | None
    """What makes it fit where it doesn't."""

    @property
    def fits(self) -> bool:
        """Whether a GPU's memory is enough."""
        return self.memory.total <= USABLE_SHARE * self.gpu.memory_bytes


def memory(job: Job, count: int, gpu_bytes: float | None = None) -> Memory:
    """What one of `count` GPUs of `gpu_bytes` holds; None gathers every layer anew.

    One GPU alone runs bf16 by autocast over fp32 weights; several gather bf16 ones.
    """
    shape, config = job.shape, job.config
    num, learning, is_bf16 = shape.num_parameters, job.num_learning, config.precision == "bf16"
    in_layers = num - shape.embedding_parameters
    if config.method == "full":
        weights = 4.0 * num + (2.0 * in_layers if count == 1 and is_bf16 else 0.0)
    elif config.method == "qlora":
        weights = _NF4_BYTES * in_layers + (2.0 if is_bf16 else 4.0) * shape.embedding_parameters + 4.0 * learning
    else:
        weights = (2.0 if count == 1 and is_bf16 else 4.0) * num + 4.0 * learning
    gathered, replicated = 0.0, 0.0
    width = 2.0 if is_bf16 else 4.0
    if count > 1 and replicates_frozen(config, num, gpu_bytes):
        weights, replicated = 4.0 * learning, width * num
        gathered = width * learning
    elif count > 1:
        layer, root = in_layers / shape.num_layers, float(shape.embedding_parameters)
        layers_held = 2.0 if reshards_after_forward(config, num, gpu_bytes) else float(shape.num_layers)
        gathered = width * (layers_held * layer + root)
        if config.method == "full":
            gathered += width * (layer + root) + 4.0 * max(layer, root)
    tokens = config.micro_rows * job.row_length
    held = min(config.loss_chunk_tokens or tokens, tokens)
    return Memory(
        weights=weights / count + replicated,
        gradients=4.0 * learning / count,
        optimiser=8.0 * learning / count,
        gathered=gathered,
        activations=tokens * activation_bytes(shape, config, sharded=count > 1),
        logits=held * shape.vocab_size * (12.0 if is_bf16 else 16.0),
    )


def activation_bytes(shape: ModelShape, config: TrainConfig, *, sharded: bool) -> float:
    """Kept for the way back, for one token: every layer's, and one layer's whole while it is computed again."""
    wide, kv = shape.width, shape.kv_width
    stream = 2.0 if sharded and config.precision == "bf16" else 4.0
    """Bytes of a number between layers: autocast leaves them fp32."""
    if config.precision == "fp32":
        whole, products = 48.0 * wide + 16.0 * shape.feed_forward, 4.0
    else:
        whole, products = (28.0 if sharded else 38.0) * wide + 8.0 * shape.feed_forward, 2.0
    match config.activation_checkpointing:
        case "none":
            return shape.num_layers * whole
        case "full":
            return shape.num_layers * stream * wide + whole
        case "selective":
            matrices = products * (4 * wide + 2 * kv + 2 * shape.feed_forward)
            return shape.num_layers * (stream * wide + matrices) + whole


def offer(job: Job, gpu: Accelerator, count: int, prices: Prices, mfu: float | None = None) -> Offer:
    """A job on `count` GPUs of one kind; `mfu` instead of the assumed one."""
    needed = memory(job, count, gpu.memory_bytes)
    is_compiled = compiles(job.config, "cuda")
    assumed = mfu or _PUBLISHED_MFU.get(gpu.name, _GUESSED_MFU) * (1.0 if is_compiled else _EAGER_SHARE)
    fits = needed.total <= USABLE_SHARE * gpu.memory_bytes
    computing, gathering = _seconds(job, gpu, count, assumed)
    hours = OVERHEAD * max(computing, gathering) / 3600
    is_known = fits and gpu.has_bf16 and job.config.precision == "bf16"
    price = prices.of(gpu.name)
    return Offer(
        gpu=gpu, count=count, memory=needed, mfu=assumed,
        is_guess=mfu is None and not (gpu.name in _PUBLISHED_MFU and is_compiled),
        hours=hours if is_known else None, waits_for_links=gathering > computing,
        on_demand=_dollars(price.on_demand, hours * count) if is_known else None,
        spot=_dollars(price.spot, hours * count) if is_known else None,
        way_out=None if fits else _way_out(job, gpu, count),
    )  # fmt: skip


def smallest(job: Job, gpu: Accelerator, prices: Prices, mfu: float | None = None) -> Offer:
    """On as few GPUs of one machine (1, 2, 4, 8) as it fits on; on eight where it doesn't."""
    counts = (1,) if job.config.method == "qlora" else (1, 2, 4, HOST_GPUS)
    offers = [offer(job, gpu, count, prices, mfu) for count in counts]
    return next((offered for offered in offers if offered.fits), offers[-1])


def _seconds(job: Job, gpu: Accelerator, count: int, mfu: float) -> tuple[float, float]:
    """To compute, and to move weights and gradients between GPUs, which happens at the same time."""
    config = job.config
    work = job.flops * _RECOMPUTED[config.activation_checkpointing]
    computing = work / (count * gpu.dense_tflops * 1e12 * mfu)
    if count == 1:
        return computing, 0.0
    rate = PCIE_BYTES_PER_S if gpu.nvlink_gb_s is None else gpu.nvlink_gb_s * 1e9 / 2 * LINK_SHARE
    passes = job.num_steps * math.ceil(config.batch_rows / (config.micro_rows * count))
    gathered = float(job.shape.num_parameters)
    if replicates_frozen(config, gathered, gpu.memory_bytes):
        gathered = float(job.num_learning)
    ways = 2 if reshards_after_forward(config, gathered, gpu.memory_bytes) else 1
    moved = ways * 2.0 * gathered + 4.0 * job.num_learning  # gathered in bf16, gradients summed in fp32
    return computing, passes * moved * (count - 1) / count / rate


def _dollars(price: tuple[float, float] | None, gpu_hours: float) -> tuple[float, float] | None:
    return (price[0] * gpu_hours, price[1] * gpu_hours) if price else None


def _way_out(job: Job, gpu: Accelerator, count: int) -> str | None:
    """The first of the usual savings that is enough."""
    tried: dict[str, object] = {}
    savings: tuple[tuple[str, object], ...] = (
        ("micro_rows", 1), ("activation_checkpointing", "full"), ("method", "lora"), ("method", "qlora")
    )  # fmt: skip
    for key, value in savings:
        if getattr(job.config, key) == value:
            continue
        tried[key] = value
        saved = dataclasses.replace(job, config=job.config.model_copy(update=tried))
        if memory(saved, 1 if value == "qlora" else count, gpu.memory_bytes).total <= USABLE_SHARE * gpu.memory_bytes:
            return ", ".join(f"{name}: {setting}" for name, setting in tried.items())
    return None


def _matrix(shape: ModelShape, name: str) -> tuple[int, int]:
    """Inputs and outputs of a linear layer of the Llama family. Unknown names count as the widest."""
    wide, kv, high = shape.width, shape.kv_width, shape.feed_forward
    known = {
        "q_proj": (wide, wide), "k_proj": (wide, kv), "v_proj": (wide, kv), "o_proj": (wide, wide),
        "gate_proj": (wide, high), "up_proj": (wide, high), "down_proj": (high, wide),
    }  # fmt: skip
    return known.get(name, (wide, high))
