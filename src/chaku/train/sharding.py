"""A trainee spread over the processes with FSDP2. One of them reads the weights, the others get them by broadcast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from chaku.errors import ChakuError, UsageError
from chaku.train.attention import VARLEN
from chaku.train.base import Base
from chaku.train.config import TrainConfig
from chaku.train.hub_base import fetch_weights
from chaku.train.model import Trainee, attention_of, make_trainee, open_trainee
from chaku.train.parallel import World
from chaku.train.pretrained import causal_in_shape, read_causal


def open_spread(base: Base, config: TrainConfig, row_length: int, world: World) -> Trainee:
    """A base as the trainee of all processes, on their devices. Raises ModelError or UsageError, the same on all.

    Only the leading process holds the whole model for a while; each other one never more than its share and a tensor.
    """
    if world.size == 1:
        fetch_weights(base)
        trainee = open_trainee(base, config, row_length, world.device)
        if config.method != "qlora":  # quantised on its device
            trainee.to(world.device)
        return trainee
    if config.method == "qlora":
        raise UsageError("qlora runs in one process: 4-bit weights are not sharded", fix="say method: lora")
    attention = attention_of(config, world.device)
    causal, told = None, None
    if world.leads:
        try:
            fetch_weights(base)
            causal = read_causal(base, config, row_length, attention)
            told = causal.config
        except ChakuError as error:
            told = error
    told = world.told(told)
    if isinstance(told, ChakuError):
        raise told
    if causal is None:
        causal = causal_in_shape(told, attention)
    trainee = make_trainee(causal, config, varlen=attention == VARLEN)
    whole = _emptied(trainee)
    _spread_buffers(trainee, world)
    shard(trainee, config, world)
    _fill(trainee, whole, world)
    return trainee


def _emptied(trainee: Trainee) -> dict[str, Tensor]:
    """What the parameters held; they keep their shapes, in fp32: FSDP wants one kind in a group."""
    held = {name: each.detach() for name, each in trainee.named_parameters()}
    _replace(trainee, lambda _, each: torch.empty_like(each, dtype=torch.float32, device="meta"))
    return held


def _spread_buffers(trainee: Trainee, world: World) -> None:
    """Buffers such as the rotary frequencies are no part of the weights; all get those of the leading process."""
    for module in trainee.modules():
        for name, buffer in module.named_buffers(recurse=False):
            same = buffer.to(world.device) if world.leads else torch.empty_like(buffer, device=world.device)
            dist.broadcast(same, src=0)
            module.register_buffer(name, same, persistent=name not in module._non_persistent_buffers_set)


def _fill(trainee: Trainee, whole: dict[str, Tensor], world: World) -> None:
    """Hand the leading process's tensors round, one at a time; each process keeps its share."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    def share(name: str, parameter: Tensor) -> Tensor:
        assert isinstance(parameter, DTensor)
        held = whole.pop(name)
        full = torch.empty(held.shape, dtype=torch.float32, device=world.device)
        if world.leads:
            full.copy_(held)
        dist.broadcast(full, src=0)
        cut = distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None)
        own: Any = torch.empty_like(parameter, device=world.device)
        own.to_local().copy_(cut.to_local())  # a copy, as the cut still holds the whole
        return cast(Tensor, own)

    _replace(trainee, share)


def _replace(model: nn.Module, instead: Callable[[str, Tensor], Tensor]) -> None:
    """Put another tensor in the place of each parameter, wherever it hangs: tied ones stay tied."""
    made = {
        each: nn.Parameter(instead(name, each.detach()), each.requires_grad) for name, each in model.named_parameters()
    }
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            setattr(module, name, made[parameter])


def shard(trainee: Trainee, config: TrainConfig, world: World) -> None:
    """Spread parameters, gradients and optimiser state over the world, layer by layer.

    Gradients are summed, never averaged: the loss is divided by the tokens of all processes already.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method

    policy = MixedPrecisionPolicy()
    if config.precision == "bf16":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
        trainee.autocast_to = None
    options: dict[str, Any] = {"mesh": init_device_mesh(world.device.type, (world.size,)), "mp_policy": policy}
    for layer in trainee.causal.model.layers:
        fully_shard(layer, **options)
    fully_shard(trainee, **options)
    register_fsdp_forward_method(trainee, "generate")
    for module in trainee.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
