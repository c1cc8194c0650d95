"""Log probabilities of the supervised tokens. Positions without a target never meet the head; logits live by the chunk.

An objective (`chaku.train.objective`) makes a loss of them.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

NO_TARGET = -100


def token_log_probs(
    hidden: Tensor, head: nn.Linear, targets: Tensor, chunk_tokens: int = 0, target_positions: Tensor | None = None
) -> Tensor:
    """log p(target) in fp32, [number of targets], in the order of the flattened positions.

    hidden is [..., width], targets [...] with NO_TARGET elsewhere. `chunk_tokens` bounds the logits in memory, which
    the backward pass computes once more; 0 keeps them all. `target_positions` are the flat positions that have a
    target, where the caller knows them: to find them here, the host would wait for the device. Without any target the
    result is empty and its sum still has a gradient (of 0), so that every process runs the same collectives.
    """
    targets = targets.flatten()
    if target_positions is None:
        target_positions = (targets != NO_TARGET).nonzero().flatten()
    hidden = hidden.flatten(0, -2).index_select(0, target_positions)
    targets = targets.index_select(0, target_positions)
    if not chunk_tokens or len(targets) <= chunk_tokens:
        return _log_probs(hidden, head.weight, head.bias, targets)
    parts = []
    for rows, wanted in zip(torch.split(hidden, chunk_tokens), torch.split(targets, chunk_tokens), strict=True):
        part = checkpoint(_log_probs, rows, head.weight, head.bias, wanted, use_reentrant=False)
        assert isinstance(part, Tensor)
        parts.append(part)
    return torch.cat(parts)


def _log_probs(hidden: Tensor, weight: Tensor, bias: Tensor | None, targets: Tensor) -> Tensor:
    logits = nn.functional.linear(hidden, weight, bias)
    return -nn.functional.cross_entropy(logits.float(), targets, reduction="none")
