"""The same gradients whichever way rows are cut: packed, unpacked, accumulated, on one process or several."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from chaku.data.rows.packed import Row
from chaku.errors import UsageError
from chaku.train.attention import document_cu_seqlens, document_mask, register_varlen
from chaku.train.base import find_base
from chaku.train.batches import Batches, Step, micro_batch, row_order, rows_of_step, targets_of
from chaku.train.config import TrainConfig
from chaku.train.loss import NO_TARGET, token_log_probs
from chaku.train.model import Trainee
from chaku.train.parallel import World, clip_gradients
from chaku.train.parallelize import open_trainee, parallelize
from chaku.train.rows import Rows
from chaku.train.sharding import shard
from train import small

CPU = torch.device("cpu")
Gradients = dict[str, Tensor]


def config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{**small.SETTINGS, **changes})


def trainee(base: Path, **changes: Any) -> Trainee:
    return open_trainee(find_base(str(base)), config(**changes), 256, World.alone(CPU))


def gradients(model: Trainee, step: Step) -> Gradients:
    model.zero_grad()
    for batch in step.micro_batches:
        torch.autograd.backward(model.summed_loss(batch)[0] / step.weight)
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.grad is not None}


def unpacked(rows: Sequence[Row]) -> list[Row]:
    """Each document as a row of its own."""
    return [
        Row(row.file, row.number, ids, mask, np.zeros(len(ids), np.uint16))
        for row in rows
        for ids, mask in row.documents()
    ]


def assert_equal(one: Gradients, other: Gradients) -> None:
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(
            one[name], other[name], rtol=1e-4, atol=2e-6, msg=lambda text, name=name: name + text
        )


@pytest.fixture(scope="module")
def rows(small_set: Path) -> list[Row]:
    every = Rows(small_set, "train")
    return [every[number] for number in range(8)]


@pytest.fixture(scope="module")
def whole(base: Path, rows: list[Row]) -> Gradients:
    return gradients(trainee(base), Batches(rows, 8, 8, 0).step(0))


@pytest.mark.parametrize("micro_rows", [1, 2, 3])
def test_accumulated_gradients_are_those_of_the_whole_batch(
    base: Path, rows: list[Row], whole: Gradients, micro_rows: int
) -> None:
    assert_equal(whole, gradients(trainee(base), Batches(rows, 8, micro_rows, 0).step(0)))


def test_packed_gradients_are_those_of_documents_by_themselves(base: Path, rows: list[Row], whole: Gradients) -> None:
    apart = unpacked(rows)
    assert len(apart) >= 2 * len(rows)
    assert_equal(whole, gradients(trainee(base), Batches(apart, len(apart), 4, 0).step(0)))


@pytest.mark.parametrize(
    "levers",
    [
        {"loss_chunk_tokens": 0}, {"loss_chunk_tokens": 7}, {"activation_checkpointing": "full"},
        {"activation_checkpointing": "selective"},
    ],
    ids=str,
)  # fmt: skip
def test_a_lever_changes_no_gradient(base: Path, rows: list[Row], whole: Gradients, levers: dict[str, Any]) -> None:
    assert_equal(whole, gradients(trainee(base, **levers), Batches(rows, 8, 8, 0).step(0)))


def test_varlen_gets_documents_and_grouped_heads_as_its_kernel_wants_them(
    base: Path, rows: list[Row], whole: Gradients
) -> None:
    """The shim against a stand-in for the kernel, which has no CPU version."""

    def kernel(
        query: Tensor, key: Tensor, value: Tensor, borders: Tensor, _same: Tensor, max_q: int, max_k: int, *,
        scale: float, window_size: tuple[int, int], enable_gqa: bool = False,
    ) -> Tensor:  # fmt: skip
        assert window_size == (-1, 0) and borders.dtype == torch.int32 and len(borders) % 64 == 0
        answers = []
        for start, end in zip(borders[:-1].tolist(), borders[1:].tolist(), strict=True):
            assert end - start <= max_q == max_k
            if start < end:
                cut = [each[start:end].transpose(0, 1) for each in (query, key, value)]
                answer = torch.nn.functional.scaled_dot_product_attention(
                    *cut, is_causal=True, scale=scale, enable_gqa=enable_gqa
                )
                answers.append(answer.transpose(0, 1))
        return torch.cat(answers)

    register_varlen(kernel)
    model = trainee(base)
    model.causal.set_attn_implementation("chaku_varlen")
    model.varlen = True
    assert_equal(whole, gradients(model, Batches(rows, 8, 4, 0).step(0)))


def test_varlen_gets_one_kind_of_number_under_autocast(base: Path, rows: list[Row]) -> None:
    """The rotation leaves queries and keys in fp32, and the kernel takes bf16 alone."""
    seen: list[torch.dtype] = []

    def kernel(query: Tensor, key: Tensor, value: Tensor, *_: object, scale: float, is_causal: bool) -> Tensor:
        seen.extend((query.dtype, key.dtype, value.dtype))
        return query

    register_varlen(kernel)
    model = trainee(base, precision="bf16")
    model.causal.set_attn_implementation("chaku_varlen")
    model.varlen = True
    model.summed_loss(micro_batch(rows[:1]))
    assert set(seen) == {torch.bfloat16}


def test_varlen_is_refused_where_it_can_not_run(base: Path) -> None:
    with pytest.raises(UsageError, match="computes in bf16 on a GPU alone"):
        trainee(base, attention="varlen")


def test_masked_tokens_give_no_gradient(base: Path, rows: list[Row]) -> None:
    model = trainee(base)
    muted = [dataclasses.replace(row, loss_mask=np.zeros_like(row.loss_mask)) for row in rows]
    step = Batches(muted, 8, 8, 0).step(0)
    assert step.num_trained == 0
    torch.autograd.backward(model.summed_loss(step.micro_batches[0])[0])
    assert all(not each.grad.any() for each in model.parameters() if each.grad is not None)


def test_a_row_without_targets_in_a_batch_changes_nothing(base: Path, rows: list[Row], whole: Gradients) -> None:
    muted = dataclasses.replace(rows[0], loss_mask=np.zeros_like(rows[0].loss_mask))
    assert_equal(whole, gradients(trainee(base), Batches([*rows, muted], 9, 1, 0).step(0)))


def test_documents_do_not_see_each_other(base: Path, rows: list[Row]) -> None:
    row = next(row for row in rows if row.doc_ids[-1] >= 2)
    model, batch = trainee(base).eval(), micro_batch([row])
    second = torch.from_numpy(row.doc_ids == 1)
    changed = batch.ids.clone()
    changed[0, ~second] = (changed[0, ~second] + 17) % 256
    with torch.no_grad():
        before = model.hidden(batch)[0]
        after = model.hidden(dataclasses.replace(batch, ids=changed))[0]
    assert torch.equal(before[second], after[second])
    assert not torch.equal(before[~second], after[~second])


def test_positions_begin_anew_in_every_document(rows: list[Row]) -> None:
    row = rows[0]
    expected = np.concatenate([np.arange(len(ids)) for ids, _ in row.documents()])
    assert micro_batch([row], 256).positions[0, : len(row.ids)].tolist() == expected.tolist()


def test_targets_are_the_trained_tokens_one_to_the_left(rows: list[Row]) -> None:
    for row in rows:
        targets = targets_of(row)
        wanted = [ids[1:][mask[1:] == 1] for ids, mask in row.documents()]
        assert targets[targets != NO_TARGET].tolist() == np.concatenate(wanted).tolist()
        assert (targets != NO_TARGET).sum() == row.loss_mask.sum()  # no document begins with a trained token
        assert set(row.ids[row.loss_mask == 1]) >= {259}  # the end of the answer is learned


def test_the_mask_lets_a_document_look_back_and_no_further() -> None:
    mask = document_mask(torch.tensor([[0, 0, 1, -1]]))[0, 0]
    assert mask.int().tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
    assert document_cu_seqlens(torch.tensor([[0, 0, 1], [1, 1, 1]]))[:4].tolist() == [0, 2, 3, 6]


def test_chunked_loss_is_the_loss() -> None:
    torch.manual_seed(0)
    hidden, head = torch.randn(3, 50, 8, requires_grad=True), torch.nn.Linear(8, 11, bias=False)
    targets = torch.randint(0, 11, (3, 50))
    targets[:, ::2] = NO_TARGET
    plain = torch.nn.functional.cross_entropy(head(hidden).view(-1, 11), targets.view(-1), reduction="sum")
    for chunk in (0, 1, 16, 1000):
        torch.testing.assert_close(-token_log_probs(hidden, head, targets, chunk).sum(), plain)


def test_every_epoch_takes_every_row_once_in_an_order_of_its_own() -> None:
    taken = [rows_of_step(step, 25, 6, seed=3) for step in range(10)]
    for epoch in (0, 1):
        assert sorted(row for own, rows in taken if own == epoch for row in rows) == list(range(25))
    assert row_order(25, 3, 0).tolist() != row_order(25, 3, 1).tolist() != row_order(25, 4, 1).tolist()
    assert row_order(6, 0, 0).tolist() == [0, 2, 1, 5, 4, 3]  # must never change: runs go on with it


@pytest.mark.parametrize("num_processes", [2, 4])
def test_several_processes_have_the_gradients_of_one(
    base: Path, rows: list[Row], whole: Gradients, num_processes: int, tmp_path: Path
) -> None:
    def work(world: World) -> None:
        model = trainee(base)
        shard(model, config(), world)
        # 8 rows by 3 are three micro-batches: one process has none of its own
        step = Batches(rows, 8, 3, 0, world.rank, num_processes).step(0)
        found = {name: each.full_tensor() for name, each in gradients(model, step).items()}
        norm = clip_gradients(model, 1e9)
        if world.is_rank_zero:
            torch.save((found, float(norm)), tmp_path / "gradients.pt")

    assert small.together(work, num_processes) == [0] * num_processes
    found, norm = torch.load(tmp_path / "gradients.pt")
    assert_equal(whole, found)
    assert norm == pytest.approx(float(torch.stack([each.norm() for each in whole.values()]).norm()), rel=1e-4)


def test_adapters_learn_and_the_base_does_not(base: Path, rows: list[Row]) -> None:
    model = trainee(base, method="lora")
    found = gradients(model, Batches(rows, 8, 8, 0).step(0))
    assert found and all("lora_" in name for name in found)


def test_a_model_of_another_dtype_learns_in_fp32(base: Path) -> None:
    from transformers import AutoModelForCausalLM

    causal = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16)
    model = parallelize(causal, config(), World.alone(CPU))
    assert {each.dtype for each in model.parameters()} == {torch.float32}
