"""The model that learns: from a hub id, a folder or a GGUF, with adapters where asked, and its loss inside it."""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from chaku.errors import UsageError
from chaku.train.attention import VARLEN, document_mask, register_varlen
from chaku.train.base import Base
from chaku.train.batches import MicroBatch
from chaku.train.config import TrainConfig
from chaku.train.flops import ModelCost
from chaku.train.layers import set_up_layers
from chaku.train.loss import summed_cross_entropy
from chaku.train.pretrained import read_causal


class Trainee(nn.Module):
    """A causal language model with its loss: one forward gives the sum over supervised tokens.

    The head and the loss are inside, so that a sharding root gathers the head's weight for them.
    """

    adapters: Any
    """peft's view of the same modules, or None."""

    def __init__(self, causal: nn.Module, *, varlen: bool = False, chunk_tokens: int = 0, adapters: Any = None) -> None:
        super().__init__()
        self.causal: Any = causal
        self.varlen = varlen
        self.chunk_tokens = chunk_tokens
        object.__setattr__(self, "adapters", adapters)  # peft's view of the same modules, not one more child
        self.autocast_to: torch.dtype | None = None

    def train(self, mode: bool = True) -> Trainee:
        """As for any module; but 4-bit layers stay as they are: for inference on CPU bitsandbytes packs them anew."""
        super().train(mode)
        for module in self.modules():
            if type(module).__name__ == "Linear4bit":
                module.training = True
        return self

    def forward(self, batch: MicroBatch) -> Tensor:
        """Sum of the token losses of one micro-batch."""
        return summed_cross_entropy(
            self.hidden(batch), self.causal.lm_head, batch.targets, self.chunk_tokens, batch.places
        )

    def hidden(self, batch: MicroBatch) -> Tensor:
        """What the head sees, [rows, length, width]; every document by itself."""
        if self.varlen:
            sight: dict[str, Any] = {"cu_seqlens": batch.borders, "max_length": batch.ids.shape[1]}
        else:
            sight = {"attention_mask": document_mask(batch.documents)}
        out = self.causal.model(input_ids=batch.ids, position_ids=batch.positions, use_cache=False, **sight)
        states: Tensor = out.last_hidden_state
        return states

    def generate(self, ids: Tensor, **options: Any) -> Tensor:
        """What transformers makes of ids [rows, length]: a method, so that a sharding root gathers its weights."""
        answer: Tensor = self.causal.generate(ids, attention_mask=torch.ones_like(ids), **options)
        return answer

    def summed_loss(self, batch: MicroBatch) -> Tensor:
        """Forward under the run's precision."""
        device = batch.ids.device.type
        context = torch.autocast(device, self.autocast_to) if self.autocast_to else contextlib.nullcontext()
        with context:
            loss: Tensor = self(batch)
        return loss


def attention_of(config: TrainConfig, device: torch.device) -> str:
    """The attention that transformers is asked for on `device`. Raises UsageError where it has none of that kind."""
    is_possible = device.type == "cuda" and config.precision == "bf16"
    if config.attention == "varlen" and not is_possible:
        raise UsageError("attention: varlen computes in bf16 on a GPU alone", fix="say attention: sdpa, or auto")
    varlen = config.attention != "sdpa" and is_possible
    if varlen:
        register_varlen()
    return VARLEN if varlen else "sdpa"


def open_trainee(base: Base, config: TrainConfig, row_length: int, device: torch.device) -> Trainee:
    """Load a base into host memory and make it ready to learn on `device`. Raises ModelError or UsageError."""
    attention = attention_of(config, device)
    return make_trainee(read_causal(base, config, row_length, attention), config, varlen=attention == VARLEN)


def make_trainee(causal: Any, config: TrainConfig, *, varlen: bool = False) -> Trainee:
    """A loaded model as a trainee: adapters, what learns in fp32, activation checkpointing, compilation."""
    adapters = None
    if config.method != "full":
        adapters = _add_adapters(causal, config)
        causal = adapters.get_base_model()
    for parameter in causal.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    causal.train()
    set_up_layers(causal.model.layers, config)
    trainee = Trainee(causal, varlen=varlen, chunk_tokens=config.loss_chunk_tokens, adapters=adapters)
    if config.precision == "bf16":
        trainee.autocast_to = torch.bfloat16
    return trainee


def cost_of(trainee: Trainee) -> ModelCost:
    """What its arithmetic follows from; of a sharded one the whole."""
    each = [(parameter, getattr(parameter, "quant_state", None)) for parameter in trainee.parameters()]
    return ModelCost(
        num_parameters=sum(one.numel() if packed is None else packed.shape.numel() for one, packed in each),
        num_learning=sum(one.numel() for one, _ in each if one.requires_grad),
        num_layers=trainee.causal.config.num_hidden_layers,
        width=trainee.causal.config.hidden_size,
    )


def _add_adapters(causal: Any, config: TrainConfig) -> Any:
    import peft

    if "lm_head" in config.lora.targets:
        raise UsageError("lora.targets names lm_head, which stays as it is here", fix="leave it out")
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
