"""How the layers of a model run: their activations kept or computed again on the way back, their code compiled or not.

A layer's `forward` is replaced, not its call, so that FSDP's hooks stay outside of both.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

from chaku.train.config import TrainConfig


def set_up_layers(layers: nn.ModuleList, config: TrainConfig) -> None:
    """Mutates the layers. One function runs all of them, so that they share what is compiled."""
    run: Any = {"none": _as_is, "full": _computed_again, "selective": _matmuls_kept}[config.activation_checkpointing]
    if run is _as_is and not config.compile:
        return
    if config.compile:
        run = torch.compile(run)
    for layer in layers:
        layer.forward = functools.partial(run, layer)


def _as_is(layer: nn.Module, *args: Any, **options: Any) -> Any:
    return type(layer).forward(layer, *args, **options)


def _computed_again(layer: nn.Module, *args: Any, **options: Any) -> Any:
    if not (layer.training and torch.is_grad_enabled()):
        return _as_is(layer, *args, **options)
    return checkpoint(_as_is, layer, *args, use_reentrant=False, **options)


def _matmuls_kept(layer: nn.Module, *args: Any, **options: Any) -> Any:
    if not (layer.training and torch.is_grad_enabled()):
        return _as_is(layer, *args, **options)
    return checkpoint(_as_is, layer, *args, use_reentrant=False, context_fn=_keeping_matmuls, **options)


def _keeping_matmuls() -> Any:
    """Keep what is dear to compute (matrix products, attention), compute the rest again."""
    return create_selective_checkpoint_contexts(_keep_or_not)  # type: ignore[no-untyped-call]


def _keep_or_not(_context: Any, operation: Any, *_args: Any, **_options: Any) -> CheckpointPolicy:
    return CheckpointPolicy.MUST_SAVE if operation in _DEAR else CheckpointPolicy.PREFER_RECOMPUTE


_aten = torch.ops.aten
_DEAR = {
    _aten.mm.default, _aten.addmm.default, _aten.bmm.default, _aten._scaled_dot_product_flash_attention.default,
    _aten._scaled_dot_product_flash_attention_for_cpu.default, _aten._scaled_dot_product_efficient_attention.default,
}  # fmt: skip
