"""The processes that train together: one, or what torchrun started, sharded with FSDP2 (gloo on CPU, nccl on GPU)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from chaku.errors import UsageError
from chaku.models.plan.accelerators import recognised
from chaku.train.config import TrainConfig

_RANK_LOST_AFTER = timedelta(minutes=10)


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int
    size: int
    device: torch.device

    @property
    def leads(self) -> bool:
        """The one that writes and speaks."""
        return self.rank == 0

    @property
    def has_gpu(self) -> bool:
        """Work is done on a GPU, not here."""
        return self.device.type == "cuda"

    def summed(self, *values: float | Tensor, same: tuple[Tensor, ...] = ()) -> list[float]:
        """Each value summed over all processes, the same on all of them; behind them what is the `same` already.

        The one place where a step waits for the device.
        """
        own = torch.stack([self._number(each) for each in values])
        if self.size > 1:
            dist.all_reduce(own)
        read: list[float] = torch.cat([own, *(self._number(each)[None] for each in same)]).tolist()
        return read

    def _number(self, value: float | Tensor) -> Tensor:
        if isinstance(value, Tensor):
            return value.detach().to(self.device, torch.float64)
        return torch.full(
            (), value, dtype=torch.float64, device=self.device
        )  # filled there: a copy would be waited for

    def told(self, value: Any) -> Any:
        """What the leading process has, on all of them."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier()


@contextlib.contextmanager
def open_world(config: TrainConfig) -> Iterator[World]:
    """The world that torchrun's variables describe, or this process alone. Leaves it at the end."""
    if config.threads:
        torch.set_num_threads(config.threads)
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    device = _device(config)
    if size == 1:
        yield World(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        timeout=_RANK_LOST_AFTER, store=_meeting_place(), rank=rank, world_size=size,
    )  # fmt: skip
    try:
        yield World(rank, size, device)
    finally:
        dist.destroy_process_group()


def _meeting_place() -> Any:
    """Where processes leave their addresses, as torchrun's variables say.

    On one host torchrun keeps it over a restart, with the addresses of the dead; each attempt gets a corner of its own.
    On several, restarts are not counted alike, but each meets in a new place.
    """
    from torch.distributed.distributed_c10d import PrefixStore, Store
    from torch.distributed.rendezvous import rendezvous

    store: Store = next(rendezvous("env://", timeout=_RANK_LOST_AFTER))[0]
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        store = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    return store


def _device(config: TrainConfig) -> torch.device:
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise UsageError("device: cuda, but torch sees no GPU", fix="say device: auto, or install torch for CUDA")
    if config.device == "cpu" or not has_gpu:
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def peak_flops_per_s(config: TrainConfig, world: World) -> float | None:
    """Of all processes together: what the recipe says of one, or the table of its GPU; None where nobody says."""
    tflops = config.peak_tflops
    if tflops is None and world.device.type == "cuda" and config.precision == "bf16":
        found = recognised(torch.cuda.get_device_name(world.device))
        tflops = found.dense_tflops if found else None
    return None if tflops is None else tflops * 1e12 * world.size


def clip_gradients(model: nn.Module, most: float) -> Tensor:
    """Scale gradients so that their norm over all processes is at most `most`; the norm before, still on the device."""
    norm = nn.utils.clip_grad_norm_([each for each in model.parameters() if each.requires_grad], most)
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole
