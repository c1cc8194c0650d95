"""Memory, GPUs and cores of this machine, which the models of one gateway share."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from chaku.engines.llamacpp.devices import free_gpu_bytes
from chaku.engines.llamacpp.program import devices
from chaku.models.plan.memory_plan import MemoryPlan

log = logging.getLogger(__name__)


@dataclass
class Resources:
    """The resources of this machine that are left for models that are still to be opened."""

    available_bytes: int | None = None
    """Main memory. None: unknown."""
    gpu_bytes: int | None = None
    """Memory of GPUs. None: not asked yet."""
    num_local: int = 1
    """Models of this gateway that are served by engines on this machine: they share its cores."""

    def free_gpu_bytes(self, binary: Path | None = None) -> int:
        """Memory of the GPUs that llama.cpp can use: the wheel's build, or a program of the user's. Found once."""
        if self.gpu_bytes is None:
            found = sum(devices(binary).values()) if binary else free_gpu_bytes()
            self.gpu_bytes = found or None  # the other build may find some
        return self.gpu_bytes or 0

    def take(self, plan: MemoryPlan) -> None:
        """Subtract what a model's plan takes."""
        if self.available_bytes is not None:
            self.available_bytes = max(0, self.available_bytes - plan.total_bytes)
        if self.gpu_bytes is not None:
            self.gpu_bytes = max(0, self.gpu_bytes - plan.gpu_bytes)

    def threads(self, name: str, wanted: int | None) -> int | None:
        """Threads for one engine: those wanted, or its share of the cores. None: llama.cpp's choice, all of them."""
        cores = physical_cores()
        if wanted is None:
            return max(1, cores // self.num_local) if self.num_local > 1 else None
        if wanted * self.num_local > cores:
            log.warning(
                "threads model=%s asked=%d engines=%d cores=%d: more threads than cores make answers slower",
                name, wanted, self.num_local, cores,
            )  # fmt: skip
        return wanted


def physical_cores(topology: Path = Path("/sys/devices/system/cpu")) -> int:
    """Cores that this process may use, threads of one core counted once."""
    usable = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))
    siblings = set()
    for cpu in usable:
        file = topology / f"cpu{cpu}" / "topology" / "thread_siblings_list"
        siblings.add(file.read_text() if file.is_file() else str(cpu))
    return len(siblings)
