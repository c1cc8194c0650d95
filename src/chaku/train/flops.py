"""What a trained token costs in arithmetic, and which share of the hardware's was useful. Defined here alone.

Nothing here counts padding or activations that are computed a second time: neither teaches the model anything.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class ModelCost:
    """The numbers of a model that its arithmetic follows from. Embeddings cost none: they are looked up."""

    num_body: int
    """Parameters that every token meets: layers, norms, adapters. Neither embedding nor head."""
    num_body_learning: int
    """Those of them with a gradient."""
    num_head: int
    """Parameters of the head, which only trained tokens meet."""
    head_learns: bool
    num_layers: int
    width: int


def train_flops(model: ModelCost, num_tokens: float, num_trained: float, num_pairs: float) -> float:
    """Floating-point operations of forward and backward.

    6·N_body for each token, 6·N_head for each trained token, and 6·L·d·s for each token of a document of s tokens.
    `num_pairs` is the sum of s² over the documents; attention is causal, so half of the pairs meet. Backward costs
    twice the forward: once for the activations and once for the weights, the latter only for those that learn.
    https://arxiv.org/abs/2204.02311 appendix B, with causal attention and a head that sees what it is trained on
    """
    body = 4.0 * model.num_body + 2.0 * model.num_body_learning
    head = (6.0 if model.head_learns else 4.0) * model.num_head
    return num_tokens * body + num_trained * head + 6.0 * model.num_layers * model.width * num_pairs


def useful_mfu(flops: float, seconds: float, peak_flops_per_s: float) -> float:
    """Share (0 to 1) of the peak of all devices together that went into real tokens."""
    return flops / (seconds * peak_flops_per_s)


def squared_lengths(documents: NDArray[np.integer]) -> int:
    """Sum of the squared lengths of the documents of a row; `documents` numbers each token's from 0, [n]."""
    return int((np.bincount(documents) ** 2).sum())
