"""The processes that train together: one, or what torchrun started, sharded with FSDP2 (gloo on CPU, nccl on GPU)."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from chaku.errors import UsageError
from chaku.models.plan.accelerators import recognised
from chaku.train.config import TrainConfig

LOADING_TIMEOUT = timedelta(hours=2)
"""For collectives that wait while rank zero downloads, reads, quantises or writes a model."""
STEP_TIMEOUT = timedelta(minutes=10)
"""For collectives of steps: whoever is not there by then will not come."""


@dataclass(frozen=True)
class World:
    """This process among those that train together."""

    rank: int
    size: int
    device: torch.device
    store: Any = field(default=None, compare=False, repr=False)
    """Where the processes met (a torch.distributed Store), or None."""
    shards_alone: bool = False
    """Go through FSDP2 with one process too, which gives bf16 weights with fp32 masters. Needs a process group."""

    @classmethod
    def alone(cls, device: torch.device) -> World:
        """One process."""
        return cls(0, 1, device)

    @property
    def is_rank_zero(self) -> bool:
        """The process that writes and speaks."""
        return self.rank == 0

    @property
    def is_sharded(self) -> bool:
        """Parameters are spread over the processes."""
        return self.size > 1 or self.shards_alone

    @property
    def has_gpu(self) -> bool:
        """Work is done on a GPU, not here."""
        return self.device.type == "cuda"

    @property
    def memory_bytes(self) -> int | None:
        """Memory of this process's GPU; None on a CPU."""
        return torch.cuda.get_device_properties(self.device).total_memory if self.has_gpu else None

    def all_reduce_sum(self, *values: float | Tensor, replicated: tuple[Tensor, ...] = ()) -> list[float]:
        """Each value summed over all processes; after them the `replicated` ones, which all processes have already.

        The one place where a step waits for the device.
        """
        local = torch.stack([self._number(value) for value in values])
        if self.size > 1:
            dist.all_reduce(local)
        read: list[float] = torch.cat([local, *(self._number(value)[None] for value in replicated)]).tolist()
        return read

    def any_process(self, claim: bool) -> bool:
        """Whether a claim holds on at least one process, the same answer on all. The device is not waited for."""
        if self.size == 1:
            return claim
        claims = torch.tensor(int(claim))  # on the CPU, where gloo carries it beside nccl
        dist.all_reduce(claims)
        return bool(claims)

    def _number(self, value: float | Tensor) -> Tensor:
        if isinstance(value, Tensor):
            return value.detach().to(self.device, torch.float64)
        return torch.full(
            (), value, dtype=torch.float64, device=self.device
        )  # filled there: the host would wait for a copy

    def broadcast(self, value: Any) -> Any:
        """What rank zero has, on all processes."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]

    def all_gather(self, value: Any) -> list[Any]:
        """What each process has, in the order of ranks."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            dist.barrier()

    @contextlib.contextmanager
    def step_timeout(self) -> Iterator[None]:
        """Collectives inside the block fail after minutes; outside of it, where models are moved, after hours."""
        self._set_timeout(STEP_TIMEOUT)
        try:
            yield
        finally:
            self._set_timeout(LOADING_TIMEOUT)

    def _set_timeout(self, timeout: timedelta) -> None:
        if self.size > 1 and dist.is_initialized():
            from torch.distributed.distributed_c10d import _set_pg_timeout

            _set_pg_timeout(timeout, dist.group.WORLD)  # torch has no public name for it


@contextlib.contextmanager
def open_world(config: TrainConfig) -> Iterator[World]:
    """The world that torchrun's variables describe, or this process alone. Leaves it at the end."""
    if config.threads:
        torch.set_num_threads(config.threads)
    size, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    allocate_in_segments()
    device = _device(config)
    if size == 1:
        yield World(0, 1, device)
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    store = _meeting_place()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        timeout=LOADING_TIMEOUT, store=store, rank=rank, world_size=size,
    )  # fmt: skip
    try:
        yield World(rank, size, device, store)
    finally:
        dist.destroy_process_group()


def allocate_in_segments() -> None:
    """Have CUDA's allocator grow its segments, so that rows of changing lengths leave no gaps. Yours wins.

    Only before CUDA is first used; https://docs.pytorch.org/docs/stable/notes/cuda.html#memory-management
    """
    if not {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"} & os.environ.keys():
        os.environ["PYTORCH_ALLOC_CONF"] = "expandable_segments:True"


def _meeting_place() -> Any:
    """Where processes leave their addresses, as torchrun's variables say.

    On one host torchrun keeps it over a restart, with the addresses of the dead; each attempt gets a prefix.
    On several, restarts are not counted alike, but each meets in a new place.
    """
    from torch.distributed.distributed_c10d import PrefixStore, Store
    from torch.distributed.rendezvous import rendezvous

    store: Store = next(rendezvous("env://", timeout=LOADING_TIMEOUT))[0]
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


def clip_gradients(model: nn.Module, max_norm: float) -> Tensor:
    """Scale gradients so that their norm over all processes is at most `max_norm`.

    Returns the norm before, still on the device.
    """
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    norm = nn.utils.clip_grad_norm_(learning, max_norm)
    whole: Tensor = norm.full_tensor() if hasattr(norm, "full_tensor") else norm
    return whole
