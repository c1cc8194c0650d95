"""AdamW over what learns, with weight decay on matrices only."""

from __future__ import annotations

import torch
from torch import nn

from chaku.train.config import TrainConfig


def open_optimiser(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """The optimiser of a model's parameters that need a gradient."""
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in learning if parameter.ndim >= 2]
    others = [parameter for parameter in learning if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=config.fused_optimiser,
    )
