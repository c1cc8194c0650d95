"""How the layers of a model run: activations saved or recomputed in the backward pass, code compiled or not.

A layer's `forward` is replaced, not its call, so that FSDP's hooks stay outside of both.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from chaku.train.config import TrainConfig

_SAVED_OPS = (
    "aten::mm", "aten::addmm", "aten::bmm",
    "aten::_scaled_dot_product_flash_attention", "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_cudnn_attention",
    "aten::_scaled_dot_product_fused_attention_overrideable",
    "aten::_flash_attention_forward", "aten::_efficient_attention_forward", "aten::_cudnn_attention_forward",
    "torch_attn::_varlen_attn",
)  # fmt: skip
"""Matrix products and every attention that a GPU or CPU may choose: what selective checkpointing never recomputes."""


@functools.cache
def saved_ops() -> frozenset[Any]:
    """The overloads of `_SAVED_OPS` that this torch has."""
    import torch.nn.attention.varlen  # registers torch_attn

    found: set[Any] = set()
    for name in _SAVED_OPS:
        namespace, _, operation = name.partition("::")
        packet = getattr(getattr(torch.ops, namespace), operation, None)
        if packet is not None:
            found.update(getattr(packet, overload) for overload in packet.overloads())
    return frozenset(found)


def set_up_layers(layers: nn.ModuleList, config: TrainConfig, *, compiles: bool) -> None:
    """Mutates the layers. One function runs all of them, so that they share what is compiled."""
    run: Any = {"none": _as_is, "full": _recomputed, "selective": _matmuls_saved}[config.activation_checkpointing]
    if run is _as_is and not compiles:
        return
    if compiles:
        run = torch.compile(run)
    for layer in layers:
        layer.forward = functools.partial(run, layer)


def _as_is(layer: nn.Module, *args: Any, **options: Any) -> Any:
    return type(layer).forward(layer, *args, **options)


def _recomputed(layer: nn.Module, *args: Any, **options: Any) -> Any:
    if not (layer.training and torch.is_grad_enabled()):
        return _as_is(layer, *args, **options)
    return checkpoint(_as_is, layer, *args, use_reentrant=False, **options)


def _matmuls_saved(layer: nn.Module, *args: Any, **options: Any) -> Any:
    if not (layer.training and torch.is_grad_enabled()):
        return _as_is(layer, *args, **options)
    return checkpoint(_as_is, layer, *args, use_reentrant=False, context_fn=_saving_contexts, **options)


def _saving_contexts() -> Any:
    return create_selective_checkpoint_contexts(_policy)  # type: ignore[no-untyped-call]


def _policy(_context: Any, operation: Any, *_args: Any, **_options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in saved_ops() else CheckpointPolicy.PREFER_RECOMPUTE
