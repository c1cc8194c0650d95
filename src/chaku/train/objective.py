"""What a run minimises: supervised fine-tuning, or direct preference optimisation (DPO) on pairs of answers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from chaku.data.rows.packed import Row
from chaku.train.batches import MicroBatch, num_trained
from chaku.train.config import DpoConfig, TrainConfig

Objective = Callable[[Tensor, MicroBatch], tuple[Tensor, dict[str, Tensor]]]
"""From the log probabilities of a micro-batch's targets, [number of targets], to a loss and further numbers to log.

All are sums over the micro-batch. The loop adds them over micro-batches and processes and divides by `Step.weight`.
"""


def supervised(log_probs: Tensor, _batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """The negative log likelihood of the supervised tokens."""
    return -log_probs.sum(), {}


def document_sums(log_probs: Tensor, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
    """No loss, but the log probability of each document's answer: what a reference model is asked for."""
    return log_probs.sum() * 0, {"documents": _by_document(log_probs, batch)}


def dpo(settings: DpoConfig) -> Objective:
    """DPO of Rafailov et al. 2023 (arXiv 2305.18290, equation 7), over pairs of neighbouring documents.

    With label smoothing (conservative DPO, Mitchell 2023) labels are wrong with that probability. Length-normalised,
    each log ratio is divided by its answer's tokens, as in Tülu 3 (arXiv 2411.15124).
    """

    def loss(log_probs: Tensor, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        log_ratios = _by_document(log_probs, batch) - batch.reference
        if settings.length_normalised:
            log_ratios = log_ratios / _by_document(torch.ones_like(log_probs), batch).clamp(min=1)
        chosen, rejected = settings.beta * log_ratios[0::2], settings.beta * log_ratios[1::2]
        margins = chosen - rejected
        smoothing = settings.label_smoothing
        losses = -(1 - smoothing) * logsigmoid(margins) - smoothing * logsigmoid(-margins)
        return losses.sum(), {
            "margin": margins.sum(), "accuracy": (margins > 0).sum(),
            "chosen_reward": chosen.sum(), "rejected_reward": rejected.sum(),
        }  # fmt: skip

    return loss


def objective_of(config: TrainConfig) -> Objective:
    """The objective that a recipe asks for."""
    return dpo(config.dpo) if config.objective == "dpo" else supervised


def weigh_of(config: TrainConfig) -> Callable[[Row], int]:
    """What the summed loss is divided by, as counted in one row: pairs for DPO, trained tokens otherwise."""
    return num_pairs if config.objective == "dpo" else num_trained


def num_pairs(row: Row) -> int:
    """Pairs of documents in a row."""
    return (int(row.doc_ids[-1]) + 1) // 2


def _by_document(values: Tensor, batch: MicroBatch) -> Tensor:
    """Sums of a value per target over documents, [number of documents]."""
    sums = values.new_zeros(batch.reference.shape)
    return sums.index_add(0, batch.target_documents, values)
