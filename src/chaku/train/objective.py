"""What a run minimises. Supervised fine-tuning is here; a preference loss is one more function of this shape."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from chaku.train.batches import MicroBatch

Objective = Callable[[Tensor, MicroBatch], tuple[Tensor, dict[str, Tensor]]]
"""From the log probabilities of a micro-batch's targets, [number of targets], to a loss and further numbers to log.

All are sums over the micro-batch. The loop adds them over micro-batches and processes and divides by `Step.weight`.
"""


def supervised(log_probs: Tensor, _batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """The negative log likelihood of the supervised tokens."""
    return -log_probs.sum(), {}
