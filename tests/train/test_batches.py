"""Batches are made ahead, pinned where a GPU will take them, and know what a device would have to be asked for."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch

from chaku.train.attention import document_cu_seqlens
from chaku.train.batches import Batches
from chaku.train.loss import NO_TARGET
from chaku.train.rows import Rows


@pytest.fixture
def pinned_by(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the threads that pinned something: without a GPU torch can't, so a stand-in keeps a copy."""
    threads: list[str] = []

    def pin_memory(self: torch.Tensor) -> torch.Tensor:
        threads.append(threading.current_thread().name)
        return self.clone()

    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    return threads


def test_the_thread_that_makes_batches_ahead_pins_them(small_set: Path, pinned_by: list[str]) -> None:
    rows = Rows(small_set, "train")
    plain = list(Batches(rows, 5, 2, 0).steps(0, 3, ahead=2))
    assert not pinned_by
    pinned = list(Batches(rows, 5, 2, 0, pins=True).steps(0, 3, ahead=2))
    pieces = [vars(batch) for step in pinned for batch in step.micro_batches]
    assert pinned_by == ["batches"] * sum(map(len, pieces))
    for piece, expected in zip(pieces, (vars(b) for step in plain for b in step.micro_batches), strict=True):
        assert all(torch.equal(piece[name], value) for name, value in expected.items())


def test_moving_a_batch_pins_nothing_and_moves_everything(small_set: Path, pinned_by: list[str]) -> None:
    batch = Batches(Rows(small_set, "train"), 5, 2, 0).step(0).micro_batches[0]
    assert batch.to(torch.device("cpu")) is batch
    moved = batch.to(torch.device("meta"))
    assert {each.device.type for each in vars(moved).values()} == {"meta"}
    assert not pinned_by


def test_a_batch_knows_its_targets_and_borders(small_set: Path) -> None:
    rows = Rows(small_set, "train")
    # 3 micro-batches for 4 processes: the last one has work without targets
    for rank in range(4):
        for batch in Batches(rows, 5, 2, 0, rank, 4).step(0).micro_batches:
            assert (
                batch.target_positions.tolist() == (batch.targets.flatten() != NO_TARGET).nonzero().flatten().tolist()
            )
            assert torch.equal(batch.cu_seqlens, document_cu_seqlens(batch.documents))
            assert (len(batch.target_positions) == 0) == (rank == 3)
