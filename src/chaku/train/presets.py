"""Named starting points of a recipe's `train` section. What a recipe says itself wins over its preset.

`chaku.data.presets` has what the same presets say about data.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Preset:
    """Values for the `train` section."""

    meaning: str
    train: dict[str, Any]


# https://github.com/lm-sys/FastChat/blob/main/README.md#fine-tuning ; batch_rows counts packed rows of `context` tokens
_VICUNA: dict[str, Any] = {
    "lr": 2e-5, "epochs": 3, "batch_rows": 128, "schedule": "cosine", "warmup": 0.03, "weight_decay": 0.0,
    "precision": "bf16", "activation_checkpointing": "selective",
}  # fmt: skip

PRESETS: dict[str, Preset] = {
    "vicuna-7b": Preset(
        "Vicuna 7B: full fine-tuning of a Llama at 2,048 tokens",
        {**_VICUNA, "micro_rows": 2},
    ),
    "vicuna-13b": Preset(
        "Vicuna 13B: the same, with every activation recomputed",
        {**_VICUNA, "micro_rows": 1, "activation_checkpointing": "full"},
    ),
    "vicuna-7b-16k": Preset(
        "Vicuna 7B 16K: positions of a shorter base are scaled linearly",
        {**_VICUNA, "micro_rows": 1, "batch_rows": 16, "activation_checkpointing": "full", "rope_scaling": "linear"},
    ),
    "lora": Preset(
        "adapters on the attention and MLP matrices of a bf16 base",
        {**_VICUNA, "method": "lora", "lr": 2e-4, "batch_rows": 64, "micro_rows": 2},
    ),
    "qlora": Preset(
        "adapters over a base held in 4 bits (nf4)",
        {**_VICUNA, "method": "qlora", "lr": 2e-4, "batch_rows": 64, "micro_rows": 1},
    ),
    "tiny": Preset(
        "SmolLM2-135M on two CPU cores in minutes",
        {
            "lr": 1e-4, "epochs": 3, "batch_rows": 8, "micro_rows": 4, "schedule": "cosine", "warmup": 0.1,
            "precision": "fp32",  # CPUs without AVX-512 BF16 or AMX do bf16 arithmetic 25 times slower than fp32
            "save_every": 50, "keep_last": 1, "evaluate_every": 0,
        },
    ),
}  # fmt: skip
