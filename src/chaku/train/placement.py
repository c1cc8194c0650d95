"""What a GPU keeps instead of gathering it again, decided by its memory: the same for runs and estimates."""

from __future__ import annotations

from chaku.train.config import TrainConfig

_REPLICATED_SHARE = 0.4
"""Of a GPU's memory that a frozen base may fill on every process."""
_GATHERED_SHARE = 0.2
"""Of a GPU's memory that gathered layers may fill between forward and backward."""


def compiles(config: TrainConfig, device_type: str) -> bool:
    """Whether layers are compiled: `auto` means on CUDA, but not over 4-bit layers, which break the graph."""
    if config.compile == "auto":
        return device_type == "cuda" and config.method != "qlora"
    return config.compile


def replicates_frozen(config: TrainConfig, num_frozen: float, memory_bytes: float | None) -> bool:
    """Whether each process holds the whole frozen base of a LoRA run, so that only adapters are gathered.

    `auto` does so where the base fills less than 40 % of a GPU. `memory_bytes` is None on a CPU, whose processes share
    one memory.
    """
    if config.method != "lora":
        return False
    if config.frozen_base != "auto":
        return config.frozen_base == "replicated"
    return memory_bytes is not None and _num_bytes(config) * num_frozen <= _REPLICATED_SHARE * memory_bytes


def reshards_after_forward(config: TrainConfig, num_sharded: float, memory_bytes: float | None) -> bool:
    """Whether a layer's gathered weights are freed after its forward and gathered once more for its backward.

    `auto` keeps them where all layers together fill less than 20 % of a GPU.
    """
    if config.reshard_after_forward != "auto":
        return config.reshard_after_forward
    return memory_bytes is None or _num_bytes(config) * num_sharded > _GATHERED_SHARE * memory_bytes


def _num_bytes(config: TrainConfig) -> float:
    return 2.0 if config.precision == "bf16" else 4.0
