"""The loss: a sum over supervised tokens. Positions without a target never meet the head; logits live by the chunk."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NO_TARGET = -100


def summed_cross_entropy(
    hidden: Tensor, head: nn.Linear, targets: Tensor, chunk_tokens: int = 0, places: Tensor | None = None
) -> Tensor:
    """Sum of -log p(target) over the positions that have one; 0, with a gradient of 0, where none has.

    hidden is [..., width], targets [...] with NO_TARGET elsewhere. `chunk_tokens` bounds the logits in memory, which
    are computed once more on the way back; 0 keeps them. `places` are the flat positions that have a target, where they
    are known: to find them here, the host would wait for the device.
    """
    targets = targets.flatten()
    if places is None:
        places = (targets != NO_TARGET).nonzero().flatten()
    hidden, targets = hidden.flatten(0, -2).index_select(0, places), targets.index_select(0, places)
    if not len(targets):
        return hidden.sum().float() + 0.0 * head.weight[:1].sum().float()
    if not chunk_tokens or len(targets) <= chunk_tokens:
        return _sum(hidden, head.weight, head.bias, targets)
    total = hidden.new_zeros((), dtype=torch.float32)
    for rows, wanted in zip(torch.split(hidden, chunk_tokens), torch.split(targets, chunk_tokens), strict=True):
        part = checkpoint(_sum, rows, head.weight, head.bias, wanted, use_reentrant=False)
        assert isinstance(part, Tensor)
        total = total + part
    return total


def _sum(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    logits = nn.functional.linear(hidden, weight, bias)
    return nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
