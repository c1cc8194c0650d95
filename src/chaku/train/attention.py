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
_PADDED_TO = 64


def document_mask(documents: Tensor) -> Tensor:
    """[rows, 1, n, n]: True where a position (third axis) may look at another: the same document, not later."""
    length = documents.shape[1]
    same = documents[:, None, :, None] == documents[:, None, None, :]
    earlier = torch.ones(length, length, dtype=torch.bool, device=documents.device).tril()
    return same & earlier


def document_cu_seqlens(documents: Tensor) -> Tensor:
    """Where documents start in the flattened rows [rows, length], int32, with the total at the end.

    The total is repeated up to a multiple of 64 numbers: few shapes, so that a compiled model is seldom recompiled.
    """
    flat = documents.flatten()
    changes = torch.ones_like(flat, dtype=torch.bool)
    changes[1:] = flat[1:] != flat[:-1]
    changes[:: documents.shape[1]] = True
    starts = changes.nonzero().flatten()
    size = -(-(len(starts) + 1) // _PADDED_TO) * _PADDED_TO
    cu_seqlens = torch.full((size,), flat.numel(), dtype=torch.int32, device=documents.device)
    cu_seqlens[: len(starts)] = starts.to(torch.int32)
    return cu_seqlens


def kernel_dtype(tensor: Tensor) -> torch.dtype:
    """The dtype that queries, keys and values get for a flash kernel, which takes 16 bits only.

    Under autocast that is autocast's: the rotation leaves queries and keys in fp32, and 4-bit layers answer in the
    dtype of their input. Elsewhere FSDP has cast the weights already.
    """
    device = tensor.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tensor.dtype


def varlen_kernel(varlen: Callable[..., Any] | None = None) -> Callable[..., Tensor]:
    """Causal flash attention by document, as this torch spells it. `varlen` stands in for torch's in tests.

    It takes queries, keys, values [tokens, heads, size], cu_seqlens, the longest document and `scale`.
    """
    if varlen is None:
        from torch.nn.attention.varlen import varlen_attn

        varlen = varlen_attn
    kernel: Callable[..., Any] = varlen
    known = inspect.signature(varlen).parameters
    # torch 2.10 and 2.11 take is_causal, later ones a window; grouped heads came with the window
    causal: dict[str, Any] = {"is_causal": True} if "is_causal" in known else {"window_size": (-1, 0)}
    shares_heads = "enable_gqa" in known

    def attend(
        query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, max_length: int, scale: float | None = None
    ) -> Tensor:
        options, groups = dict(causal), query.shape[1] // key.shape[1]
        if groups > 1 and shares_heads:
            options["enable_gqa"] = True
        elif groups > 1:
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        answer: Tensor = kernel(
            query, key, value, cu_seqlens, cu_seqlens, max_length, max_length, scale=scale, **options
        )
        return answer

    return attend


def register_varlen(varlen: Callable[..., Any] | None = None) -> None:
    """Make VARLEN an attention that transformers' models can be set to. `varlen` stands in for torch's in tests."""
    from transformers import AttentionInterface

    kernel = varlen_kernel(varlen)

    def attend(
        module: torch.nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None = None,
        *, cu_seqlens: Tensor, max_length: int, scaling: float | None = None, dropout: float = 0.0, **_: Any,
    ) -> tuple[Tensor, None]:  # fmt: skip
        """Takes heads as [rows, heads, n, size], returns [rows, n, heads, size]."""
        assert attention_mask is None and not dropout
        rows, num_heads, length, width = query.shape
        dtype = kernel_dtype(value)
        flat = [tensor.transpose(1, 2).flatten(0, 1).to(dtype) for tensor in (query, key, value)]
        answer = kernel(*flat, cu_seqlens, max_length, scaling)
        return answer.view(rows, length, num_heads, width), None

    AttentionInterface.register(VARLEN, attend)
