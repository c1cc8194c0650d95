"""The model in training: a causal language model with its loss inside it."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn

from chaku.errors import UsageError
from chaku.train.attention import VARLEN, document_mask, register_varlen
from chaku.train.batches import MicroBatch
from chaku.train.config import TrainConfig
from chaku.train.flops import ModelCost
from chaku.train.loss import token_log_probs
from chaku.train.objective import Objective, supervised


class Trainee(nn.Module):
    """A causal language model with its loss: one forward gives sums over the targets of a micro-batch.

    Head and loss are inside, so that a sharding root gathers the head's weight for them.
    """

    adapters: Any
    """peft's view of the same modules, or None."""

    def __init__(
        self, causal: nn.Module, *, varlen: bool = False, chunk_tokens: int = 0, adapters: Any = None,
        objective: Objective = supervised,
    ) -> None:  # fmt: skip
        super().__init__()
        self.causal: Any = causal
        self.varlen = varlen
        self.chunk_tokens = chunk_tokens
        self.objective = objective
        object.__setattr__(self, "adapters", adapters)  # peft's view of the same modules, not one more child
        self.autocast_to: torch.dtype | None = None

    def train(self, mode: bool = True) -> Trainee:
        """As for any module, but 4-bit layers stay in training mode: in evaluation mode bitsandbytes repacks them."""
        super().train(mode)
        for module in self.modules():
            if type(module).__name__ == "Linear4bit":
                module.training = True
        return self

    def forward(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss and metrics of one micro-batch, as the objective sums them."""
        log_probs = token_log_probs(
            self.hidden(batch), self.causal.lm_head, batch.targets, self.chunk_tokens, batch.target_positions
        )
        return self.objective(log_probs, batch)

    def hidden(self, batch: MicroBatch) -> Tensor:
        """What the head gets, [rows, length, width]; documents do not see each other."""
        if self.varlen:
            attention: dict[str, Any] = {"cu_seqlens": batch.cu_seqlens, "max_length": batch.ids.shape[1]}
        else:
            attention = {"attention_mask": document_mask(batch.documents)}
        output = self.causal.model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **attention)
        states: Tensor = output.last_hidden_state
        return states

    def generate(self, ids: Tensor, **options: Any) -> Tensor:
        """transformers' `generate` for ids [rows, length]: a method, so that a sharding root gathers its weights."""
        answer: Tensor = self.causal.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return answer

    def summed_loss(self, batch: MicroBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Forward under the run's precision: summed loss, and further sums that the objective reports."""
        device = batch.ids.device.type
        context = torch.autocast(device, self.autocast_to) if self.autocast_to else contextlib.nullcontext()
        with context:
            sums: tuple[Tensor, dict[str, Tensor]] = self(batch)
        return sums


def attention_of(config: TrainConfig, device: torch.device) -> str:
    """The attention that transformers is asked for on `device`. Raises UsageError where it has none of that kind."""
    is_possible = device.type == "cuda" and config.precision == "bf16"
    if config.attention == "varlen" and not is_possible:
        raise UsageError("attention: varlen computes in bf16 on a GPU alone", fix="say attention: sdpa, or auto")
    varlen = config.attention != "sdpa" and is_possible
    if varlen:
        register_varlen()
    return VARLEN if varlen else "sdpa"


def cost_of(trainee: Trainee) -> ModelCost:
    """What the model's arithmetic follows from; of a sharded model the whole."""
    head = trainee.causal.lm_head.weight
    embedding = trainee.causal.model.embed_tokens.weight
    body = [parameter for parameter in trainee.parameters() if parameter is not head and parameter is not embedding]
    return ModelCost(
        num_body=sum(_num_weights(parameter) for parameter in body),
        num_body_learning=sum(_num_weights(parameter) for parameter in body if parameter.requires_grad),
        num_head=_num_weights(head),
        head_learns=bool(head.requires_grad),
        num_layers=trainee.causal.config.num_hidden_layers,
        width=trainee.causal.config.hidden_size,
    )


def _num_weights(parameter: Tensor) -> int:
    """Of a parameter in 4 bits the weights that it packs."""
    packed = getattr(parameter, "quant_state", None)
    return parameter.numel() if packed is None else int(packed.shape.numel())
