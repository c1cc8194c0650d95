"""GPUs as rows: what plans and estimates reckon with. A new GPU is a new row.

Memory is what the driver reports (nvidia-smi), a little below the name's number. TFLOP/s are the makers' data sheets',
dense, half precision with fp32 sums.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass

from chaku.errors import ConfigError
from chaku.nearest import nearest

MIB = 1 << 20


@dataclass(frozen=True)
class Accelerator:
    """One kind of GPU."""

    name: str
    memory_mib: int
    capability: tuple[int, int]
    """CUDA compute capability."""
    dense_tflops: float
    """bf16 or fp16, without sparsity."""
    nvlink_gb_s: int | None
    """Both directions together; None: GPUs reach each other over PCIe."""

    @property
    def memory_bytes(self) -> int:
        """All of its memory."""
        return self.memory_mib * MIB

    @property
    def has_bf16(self) -> bool:
        """From Ampere (8.0) on."""
        return self.capability >= (8, 0)

    @property
    def has_fp8(self) -> bool:
        """From Ada (8.9) on."""
        return self.capability >= (8, 9)


ACCELERATORS: dict[str, Accelerator] = {
    row.name: row
    for row in (
        Accelerator("T4", 15_360, (7, 5), 65, None),
        Accelerator("V100-16GB", 16_160, (7, 0), 125, 300),
        Accelerator("V100-32GB", 32_510, (7, 0), 125, 300),
        Accelerator("L4", 23_034, (8, 9), 121, None),
        Accelerator("A10G", 23_028, (8, 6), 70, None),
        Accelerator("RTX3090", 24_576, (8, 6), 71, None),
        Accelerator("RTX4090", 24_564, (8, 9), 165, None),
        Accelerator("L40S", 46_068, (8, 9), 362, None),
        Accelerator("A100-40GB", 40_960, (8, 0), 312, 600),
        Accelerator("A100-80GB", 81_920, (8, 0), 312, 600),
        Accelerator("H100-80GB", 81_559, (9, 0), 989, 900),
        Accelerator("H200", 143_771, (9, 0), 989, 900),
        Accelerator("B200", 183_359, (10, 0), 2250, 1800),
    )
}


def accelerator(name: str) -> Accelerator:
    """The row of that name, however it is spelled (v100-32gb, "RTX 4090", H100). Raises ConfigError otherwise."""
    wanted = _plain(name)
    for row in ACCELERATORS.values():
        if wanted == _plain(row.name):
            return row
    alike = [row for row in ACCELERATORS.values() if _plain(row.name).startswith(wanted) and wanted]
    if len(alike) == 1:
        return alike[0]
    near = " or ".join(row.name for row in alike) or nearest(name.upper(), ACCELERATORS, likeness=0.5)
    known = f"known: {', '.join(ACCELERATORS)}"
    fix = f"did you mean {near}? {known}" if near else known
    raise ConfigError(f"there is no GPU {name!r} in the table", fix=fix, param="gpu")


_LESSER_FORMS = frozenset({"nvl", "laptop", "max"})
"""Have less arithmetic under the same name; so has H100's PCIe form, not A100's and V100's."""


def recognised(device_name: str) -> Accelerator | None:
    """The row of a GPU as its driver calls it ("NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 4090"); None: no row."""
    words = re.findall("[a-z0-9]+", device_name.lower())
    if _LESSER_FORMS & set(words) or {"h100", "pcie"} <= set(words):
        return None
    names = {*words, *map("".join, itertools.pairwise(words))}
    kinds = [row for row in ACCELERATORS.values() if _plain(row.name.partition("-")[0]) in names]
    sized = [row for row in kinds if _plain(row.name.partition("-")[2]) in names]
    return next(iter(sized or kinds), None)


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
