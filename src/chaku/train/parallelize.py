"""A loaded model made ready to learn, in one order: adapters, precision, checkpointing, compile, FSDP2."""

from __future__ import annotations

from typing import Any

import torch

from chaku.errors import ChakuError, UsageError
from chaku.train.adapters import add_adapters
from chaku.train.attention import VARLEN
from chaku.train.base import Base
from chaku.train.config import TrainConfig
from chaku.train.hub_base import fetch_weights
from chaku.train.layers import set_up_layers
from chaku.train.model import Trainee, attention_of
from chaku.train.objective import objective_of
from chaku.train.parallel import World
from chaku.train.placement import compiles
from chaku.train.pretrained import causal_in_shape, read_causal
from chaku.train.sharding import shard_with_weights


def open_trainee(base: Base, config: TrainConfig, row_length: int, world: World) -> Trainee:
    """A base as the trainee of all processes, on their devices. Raises ModelError or UsageError, the same on all.

    Only rank zero holds the whole model in host memory for a while; the others get their shares from it.
    """
    attention = attention_of(config, world.device)
    if world.is_sharded and config.method == "qlora":
        raise UsageError("qlora runs in one process: 4-bit weights are not sharded", fix="say method: lora")
    causal = _read_on_rank_zero(base, config, row_length, attention, world)
    return parallelize(causal, config, world, varlen=attention == VARLEN)


def parallelize(causal: Any, config: TrainConfig, world: World, *, varlen: bool = False) -> Trainee:
    """The trainee of this process. Mutates `causal`, of which processes other than rank zero need only the shapes."""
    adapters = None if config.method == "full" else add_adapters(causal, config)
    if adapters is not None:
        causal = adapters.get_base_model()
    for parameter in causal.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    causal.train()
    set_up_layers(causal.model.layers, config, compiles=compiles(config, world.device.type))
    trainee = Trainee(
        causal, varlen=varlen, chunk_tokens=config.loss_chunk_tokens, adapters=adapters,
        objective=objective_of(config),
    )  # fmt: skip
    if config.precision == "bf16":
        trainee.autocast_to = torch.bfloat16
    if world.is_sharded:
        shard_with_weights(trainee, config, world)
    elif config.method != "qlora":  # bitsandbytes quantised it on its device
        trainee.to(world.device)
    return trainee


def slow_arithmetic(config: TrainConfig, device_type: str) -> str | None:
    """What to tell somebody whose CPU has no instructions for bf16: its products are then done one number at a time."""
    if device_type != "cpu" or config.precision != "bf16":
        return None
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "NO AVX"):
        return None
    return "this CPU has no AVX-512, so bf16 is many times slower than fp32: set precision: fp32"


def _read_on_rank_zero(base: Base, config: TrainConfig, row_length: int, attention: str, world: World) -> Any:
    """The model with its weights; on processes other than rank zero its shapes alone."""
    causal, settings = None, None
    if world.is_rank_zero:
        try:
            fetch_weights(base)
            causal = read_causal(base, config, row_length, attention)
            settings = causal.config
        except ChakuError as error:
            settings = error
    settings = world.broadcast(settings)
    if isinstance(settings, ChakuError):
        raise settings
    return causal_in_shape(settings, attention) if causal is None else causal
