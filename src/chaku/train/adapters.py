"""LoRA adapters on a base, by peft."""

from __future__ import annotations

import warnings
from typing import Any

import torch

from chaku.errors import UsageError
from chaku.train.config import TrainConfig


def add_adapters(causal: Any, config: TrainConfig) -> Any:
    """peft's model around `causal`, whose linear layers it replaces. Raises UsageError for targets it does not have."""
    import peft

    if "lm_head" in config.lora.targets:
        raise UsageError("lora.targets names lm_head, which LoRA can't train here", fix="leave it out")
    torch.manual_seed(config.seed)
    settings = peft.LoraConfig(
        r=config.lora.rank, lora_alpha=config.lora.alpha, lora_dropout=config.lora.dropout, bias="none",
        target_modules=list(config.lora.targets), task_type="CAUSAL_LM",
    )  # fmt: skip
    try:
        with warnings.catch_warnings():  # peft asks under a name that transformers 5.24 has retired
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            return peft.get_peft_model(causal, settings)
    except ValueError as error:
        raise UsageError(f"lora.targets: {str(error).splitlines()[0]}", fix="name linear layers of the base") from None
