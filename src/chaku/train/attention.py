"""Documents in one row don't see each other: a block mask for SDPA (the reference), or flash attention by document.

varlen has no CPU kernel. Its shim is tested here against a stand-in; on a GPU it counts as unverified until a dated
result lies in bench/.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

VARLEN = "chaku_varlen"
_BORDERS_STEP = 64


def document_mask(documents: Tensor) -> Tensor:
    """[rows, 1, n, n]: True where a position (third axis) may look at another: the same document, not later."""
    length = documents.shape[1]
    same = documents[:, None, :, None] == documents[:, None, None, :]
    earlier = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return same & earlier


def document_borders(documents: Tensor) -> Tensor:
    """Where documents start in the flattened rows, int32, with the total at the end.

    The total is repeated up to a multiple of 64 numbers: few shapes, so that a compiled model is seldom compiled again.
    """
    flat = documents.flatten()
    changes = torch.ones_like(flat, dtype=torch.bool)
    changes[1:] = flat[1:] != flat[:-1]
    changes[:: documents.shape[1]] = True
    starts = changes.nonzero().flatten()
    size = -(-(len(starts) + 1) // _BORDERS_STEP) * _BORDERS_STEP
    borders = torch.full((size,), flat.numel(), dtype=torch.int32, device=documents.device)
    borders[: len(starts)] = starts.to(torch.int32)
    return borders


def register_varlen(varlen: Callable[..., Any] | None = None) -> None:
    """Make VARLEN an attention that transformers' models can be set to. `varlen` stands in for torch's in tests."""
    from transformers import AttentionInterface

    if varlen is None:
        from torch.nn.attention.varlen import varlen_attn

        varlen = varlen_attn
    kernel: Callable[..., Any] = varlen
    known = inspect.signature(varlen).parameters
    # torch 2.10 and 2.11 take is_causal, later ones a window; grouped heads came with the window
    causal: dict[str, Any] = {"is_causal": True} if "is_causal" in known else {"window_size": (-1, 0)}
    shares_heads = "enable_gqa" in known

    def attend(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None,
        *, cu_seqlens: Tensor, max_length: int, scaling: float | None = None, dropout: float = 0.0, **_: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        """Heads come as [rows, heads, n, size]; answers go as [rows, n, heads, size]."""
        assert attention_mask is None and not dropout
        rows, num_heads, length, width = query.shape
        options = dict(causal)
        if key.shape[1] != num_heads:
            if shares_heads:
                options["enable_gqa"] = True
            else:
                key, value = (each.repeat_interleave(num_heads // each.shape[1], 1) for each in (key, value))
        # under autocast the rotation leaves queries and keys in fp32, which the kernel does not take
        flat = [each.transpose(1, 2).flatten(0, 1).to(value.dtype) for each in (query, key, value)]
        answer: Tensor = kernel(*flat, cu_seqlens, cu_seqlens, max_length, max_length, scale=scaling, **options)
        return answer.view(rows, length, num_heads, width), None

    AttentionInterface.register(VARLEN, attend)
