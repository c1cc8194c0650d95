"""A trainee sharded over the processes with FSDP2. Rank zero holds the weights; the others get them by broadcast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from chaku.train.config import TrainConfig
from chaku.train.model import Trainee
from chaku.train.parallel import World
from chaku.train.placement import replicates_frozen, reshards_after_forward


def shard_with_weights(trainee: Trainee, config: TrainConfig, world: World) -> None:
    """Shard a trainee whose weights only rank zero has, and hand them round. Mutates the trainee."""
    replicated = frozen_replicas(trainee, config, world)
    whole = _emptied(trainee, replicated)
    _broadcast_buffers(trainee, world)
    shard(trainee, config, world)
    _fill(trainee, whole, world)


def frozen_replicas(trainee: Trainee, config: TrainConfig, world: World) -> set[str]:
    """Names of the frozen parameters that every process holds whole; none where they are sharded."""
    frozen = {name: parameter for name, parameter in trainee.named_parameters() if not parameter.requires_grad}
    num_frozen = sum(parameter.numel() for parameter in frozen.values())
    return set(frozen) if replicates_frozen(config, num_frozen, world.memory_bytes) else set()


def _emptied(trainee: Trainee, replicated: set[str]) -> dict[str, Tensor]:
    """Take out what the parameters hold. They keep their shapes, in fp32: FSDP wants one dtype in a group.

    Parameters that FSDP leaves alone keep their dtype.
    """
    held = {name: parameter.detach() for name, parameter in trainee.named_parameters()}

    def empty(name: str, parameter: Tensor) -> Tensor:
        dtype = parameter.dtype if name in replicated else torch.float32
        return torch.empty_like(parameter, dtype=dtype, device="meta")

    _replace(trainee, empty)
    return held


def _broadcast_buffers(trainee: Trainee, world: World) -> None:
    """Buffers such as the rotary frequencies are not part of the weights; all processes get those of rank zero."""
    for module in trainee.modules():
        for name, buffer in module.named_buffers(recurse=False):
            same = buffer.to(world.device) if world.is_rank_zero else torch.empty_like(buffer, device=world.device)
            dist.broadcast(same, src=0)
            module.register_buffer(name, same, persistent=name not in module._non_persistent_buffers_set)


def _fill(trainee: Trainee, whole: dict[str, Tensor], world: World) -> None:
    """Broadcast rank zero's tensors, one at a time; each process keeps its share, or all of what is replicated."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    def share(name: str, parameter: Tensor) -> Tensor:
        held = whole.pop(name)
        full = torch.empty(held.shape, dtype=parameter.dtype, device=world.device)
        if world.is_rank_zero:
            full.copy_(held)
        dist.broadcast(full, src=0)
        if not isinstance(parameter, DTensor):
            return full
        cut = distribute_tensor(full, parameter.device_mesh, parameter.placements, src_data_rank=None)
        local: Any = torch.empty_like(parameter, device=world.device)
        local.to_local().copy_(cut.to_local())  # a copy, as the cut still holds the whole
        return cast(Tensor, local)

    _replace(trainee, share)


def _replace(model: nn.Module, instead: Callable[[str, Tensor], Tensor]) -> None:
    """Put another tensor in the place of each parameter, wherever it hangs: tied ones stay tied."""
    replacements = {
        parameter: nn.Parameter(instead(name, parameter.detach()), parameter.requires_grad)
        for name, parameter in model.named_parameters()
    }
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            setattr(module, name, replacements[parameter])


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
    parameters = dict(trainee.named_parameters())
    replicated = {parameters[name] for name in frozen_replicas(trainee, config, world)}
    num_sharded = sum(parameter.numel() for parameter in set(parameters.values()) - replicated)
    options: dict[str, Any] = {
        "mesh": init_device_mesh(world.device.type, (world.size,)), "mp_policy": policy,
        "ignored_params": replicated or None,
        "reshard_after_forward": reshards_after_forward(config, num_sharded, world.memory_bytes),
    }  # fmt: skip
    for layer in trainee.causal.model.layers:
        fully_shard(layer, **options)
    fully_shard(trainee, **options)
    register_fsdp_forward_method(trainee, "generate")
    for module in trainee.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
