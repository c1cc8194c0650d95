"""What a GPU's kernels refuse or repeat, seen on a CPU: torch's varlen op over a stand-in for flash attention.

The stand-in takes 16 bits only, as the kernel does, and counts its calls.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from chaku.train.attention import VARLEN, register_varlen
from chaku.train.base import find_base
from chaku.train.batches import MicroBatch, micro_batch
from chaku.train.config import TrainConfig
from chaku.train.layers import saved_ops
from chaku.train.model import Trainee
from chaku.train.parallel import World
from chaku.train.parallelize import open_trainee
from chaku.train.rows import Rows
from train import small

CPU = torch.device("cpu")
LAYERS = 2


def _attend(query: Tensor, key: Tensor, value: Tensor, cu_seqlens: Tensor, scale: float | None) -> Tensor:
    """Causal attention by document, [tokens, heads, size], in fp32."""
    answers = []
    for start, end in zip(cu_seqlens[:-1].tolist(), cu_seqlens[1:].tolist(), strict=True):
        if start < end:
            cut = [tensor[start:end].float().transpose(0, 1) for tensor in (query, key, value)]
            answer = torch.nn.functional.scaled_dot_product_attention(
                *cut, is_causal=True, scale=scale, enable_gqa=key.shape[1] != query.shape[1]
            )
            answers.append(answer.transpose(0, 1))
    return torch.cat(answers)


@pytest.fixture(scope="module")
def calls() -> Iterator[list[torch.dtype]]:
    """The dtype of every call of the stand-in's forward."""
    seen: list[torch.dtype] = []

    def forward(
        query: Tensor, key: Tensor, value: Tensor, cum_seq_q: Tensor, cum_seq_k: Tensor, max_q: int, max_k: int,
        dropout_p: float, is_causal: bool, return_debug_mask: bool, *, scale: float | None = None, **_: Any,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        for tensor in (query, key, value):
            if tensor.dtype not in (torch.float16, torch.bfloat16):
                raise RuntimeError("FlashAttention only support fp16 and bf16 data type")
        seen.append(query.dtype)
        answer = _attend(query, key, value, cum_seq_q, scale).to(query.dtype)
        sums = torch.zeros(query.shape[1], query.shape[0])
        return answer, sums, torch.zeros(2, dtype=torch.uint64), torch.empty(0), torch.empty(0)

    def backward(
        grad_out: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, logsumexp: Tensor, cum_seq_q: Tensor,
        *_: Any, scale: float | None = None, **__: Any,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        gradients = [torch.zeros(tensor.shape) for tensor in (query, key, value)]
        shared = query.shape[1] // key.shape[1]
        factor = scale or query.shape[2] ** -0.5
        for start, end in zip(cum_seq_q[:-1].tolist(), cum_seq_q[1:].tolist(), strict=True):
            part = slice(start, end)
            q, k, v, g = (tensor[part].float().transpose(0, 1) for tensor in (query, key, value, grad_out))
            k, v = k.repeat_interleave(shared, 0), v.repeat_interleave(shared, 0)
            hidden = torch.ones(end - start, end - start, dtype=torch.bool).triu(1)
            weights = (q @ k.mT * factor).masked_fill(hidden, float("-inf")).softmax(-1)
            slope = g @ v.mT
            slope = weights * (slope - (slope * weights).sum(-1, keepdim=True)) * factor
            found = (slope @ k, slope.mT @ q, weights.mT @ g)
            for gradient, heads in zip(gradients, found, strict=True):
                gradient[part] = heads.unflatten(0, (gradient.shape[1], -1)).sum(1).transpose(0, 1)
        return tuple(gradient.to(query.dtype) for gradient in gradients)

    library = torch.library.Library("aten", "IMPL")
    library.impl("_flash_attention_forward", forward, "CPU")
    library.impl("_flash_attention_backward", backward, "CPU")
    yield seen
    library._destroy()


@pytest.fixture
def batch(small_set: Path) -> MicroBatch:
    return micro_batch([Rows(small_set, "train")[0]])


def opened(base: Path, *, varlen: bool, **changes: Any) -> Trainee:
    config = TrainConfig(**{**small.SETTINGS, "precision": "bf16", **changes})
    model = open_trainee(find_base(str(base)), config, 256, World.alone(CPU))
    if varlen:
        register_varlen()
        model.causal.set_attn_implementation(VARLEN)
        model.varlen = True
    return model


def learned(model: Trainee, batch: MicroBatch) -> tuple[float, dict[str, Tensor]]:
    loss = model.summed_loss(batch)[0]
    torch.autograd.backward(loss)
    return float(loss.detach()), {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


@pytest.mark.parametrize("method", ["full", "lora", "qlora"])
def test_the_first_step_of_every_method_gives_the_kernel_16_bits(
    base: Path, batch: MicroBatch, calls: list[torch.dtype], method: str
) -> None:
    if method == "qlora":
        pytest.importorskip("bitsandbytes")
    masked_loss, masked = learned(opened(base, varlen=False, method=method), batch)
    calls.clear()
    loss, gradients = learned(opened(base, varlen=True, method=method), batch)
    assert calls == [torch.bfloat16] * LAYERS
    assert loss == pytest.approx(masked_loss, rel=1e-2)
    assert gradients.keys() == masked.keys() and gradients
    for name, gradient in gradients.items():
        assert (gradient - masked[name]).norm() <= 0.05 * masked[name].norm(), name


def test_layers_that_answer_in_fp32_give_the_kernel_16_bits(
    base: Path, batch: MicroBatch, calls: list[torch.dtype]
) -> None:
    """As bitsandbytes' 4-bit layers do: they answer in the dtype of the residual stream, which is fp32."""
    model = opened(base, varlen=True)
    for layer in model.causal.model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj):
            projection.register_forward_hook(lambda _module, _inputs, answer: answer.float())
    calls.clear()
    learned(model, batch)
    assert calls == [torch.bfloat16] * LAYERS


@pytest.mark.parametrize(("checkpointing", "times"), [("none", 1), ("selective", 1), ("full", 2)])
def test_selective_checkpointing_never_computes_attention_twice(
    base: Path, batch: MicroBatch, calls: list[torch.dtype], checkpointing: str, times: int
) -> None:
    model = opened(base, varlen=True, activation_checkpointing=checkpointing)
    calls.clear()
    learned(model, batch)
    assert len(calls) == times * LAYERS


def test_what_selective_checkpointing_saves_holds_every_attention_of_a_gpu() -> None:
    aten = torch.ops.aten
    assert saved_ops() >= {
        torch.ops.torch_attn._varlen_attn.default, aten._scaled_dot_product_cudnn_attention.default,
        aten._scaled_dot_product_flash_attention.default, aten._scaled_dot_product_efficient_attention.default,
        aten.mm.default,
    }  # fmt: skip
