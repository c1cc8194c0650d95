"""Which rows make which step, and rows as tensors. The order is a pure function of (seed, epoch, index)."""

from __future__ import annotations

import functools
import math
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from chaku.data.rows.packed import Row
from chaku.train.attention import document_cu_seqlens
from chaku.train.flops import squared_lengths
from chaku.train.loss import NO_TARGET
from chaku.train.rows import RowSource

_PADDING = -1


@dataclass(frozen=True)
class PairRow(Row):
    """A row of chosen and rejected documents in turn."""

    reference: NDArray[np.float64]
    """Log probability of each document's answer under the reference model."""


@dataclass(frozen=True)
class MicroBatch:
    """Rows side by side, padded to the longest (or to a fixed length).

    Tensors are [rows, length], but for the lists from `target_positions` on.
    """

    ids: Tensor
    positions: Tensor
    """Counted from 0 in every document."""
    documents: Tensor
    targets: Tensor
    """The next token where it is trained and in the same document, NO_TARGET elsewhere."""
    target_positions: Tensor
    """Where there is a target, in the flattened rows. Found on the host, which would have to wait for a device."""
    cu_seqlens: Tensor
    """Where documents start in the flattened rows, for attention by document."""
    target_documents: Tensor
    """For each target the number of its document, counted over all rows; padding is none."""
    reference: Tensor
    """For each document what the reference model gives its answer, a log probability; 0 where rows bring none."""

    def to(self, device: torch.device) -> MicroBatch:
        """The same on another device; the host does not wait for what is pinned."""
        if device.type == "cpu":
            return self
        return MicroBatch(**{name: tensor.to(device, non_blocking=True) for name, tensor in vars(self).items()})

    def pinned(self) -> MicroBatch:
        """The same in memory that a GPU copies from by itself."""
        return MicroBatch(**{name: tensor.pin_memory() for name, tensor in vars(self).items()})


@dataclass(frozen=True)
class Step:
    """What one step trains on: this process's micro-batches, and sums over all processes."""

    index: int
    epoch: int
    rows: tuple[int, ...]
    micro_batches: tuple[MicroBatch, ...]
    num_tokens: int
    weight: float
    """What the summed loss is divided by: the number of trained tokens, or of pairs."""
    num_trained: int
    """Tokens that carry loss."""
    num_pairs: int
    """Sum of the squared lengths of documents: what attention costs."""


@functools.lru_cache(maxsize=2)
def row_order(num_rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    """The rows of an epoch in order: sorted by the raw stream of Philox under the key (seed, epoch)."""
    key = np.array([seed, epoch], dtype=np.uint64)
    return np.argsort(np.random.Philox(key=key).random_raw(num_rows), kind="stable")


def rows_of_step(step: int, num_rows: int, batch_rows: int, seed: int) -> tuple[int, tuple[int, ...]]:
    """Epoch and row numbers of a step. The last batch of an epoch is smaller where rows don't divide."""
    epoch, index = divmod(step, math.ceil(num_rows / batch_rows))
    order = row_order(num_rows, seed, epoch)
    return epoch, tuple(order[index * batch_rows : (index + 1) * batch_rows].tolist())


def targets_of(row: Row) -> NDArray[np.int64]:
    """For each position the next id, or NO_TARGET where that is not trained or begins another document."""
    targets = np.full(len(row.ids), NO_TARGET, dtype=np.int64)
    is_target = (row.loss_mask[1:] == 1) & (row.doc_ids[1:] == row.doc_ids[:-1])
    targets[:-1][is_target] = row.ids[1:][is_target]
    return targets


def micro_batch(rows: Sequence[Row], length: int | None = None, num_rows: int | None = None) -> MicroBatch:
    """Rows as tensors; padding, also to `num_rows`, is a document of its own without targets."""
    width = length or max(len(row.ids) for row in rows)
    shape = (num_rows or len(rows), width)
    ids, positions = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    documents, targets = np.full(shape, _PADDING, dtype=np.int64), np.full(shape, NO_TARGET, dtype=np.int64)
    numbers, references = np.zeros(shape, dtype=np.int64), list[NDArray[np.float64]]()
    for index, row in enumerate(rows):
        numbers[index, : len(row.ids)] = sum(map(len, references)) + row.doc_ids.astype(np.int64)
        references.append(row.reference if isinstance(row, PairRow) else np.zeros(int(row.doc_ids[-1]) + 1))
        part = slice(0, len(row.ids))
        ids[index, part] = row.ids
        documents[index, part] = row.doc_ids
        targets[index, part] = targets_of(row)
        starts = np.flatnonzero(np.diff(row.doc_ids, prepend=np.int64(_PADDING)))
        positions[index, part] = np.arange(len(row.ids)) - np.repeat(starts, np.diff([*starts, len(row.ids)]))
    target_positions = np.flatnonzero(targets != NO_TARGET)
    tensors = [torch.from_numpy(array) for array in (ids, positions, documents, targets, target_positions)]
    tensors.append(document_cu_seqlens(tensors[2]))
    tensors.append(torch.from_numpy(numbers.reshape(-1)[target_positions]))
    tensors.append(torch.from_numpy(np.concatenate(references).astype(np.float32)))
    return MicroBatch(*tensors)


def without_targets(batch: MicroBatch) -> MicroBatch:
    """Work for a process that has no rows left: all of them must run as often."""
    targets = torch.full_like(batch.targets, NO_TARGET)
    return replace(
        batch, targets=targets, target_positions=batch.target_positions[:0],
        target_documents=batch.target_documents[:0], reference=batch.reference[:0],
    )  # fmt: skip


def num_trained(row: Row) -> int:
    """Tokens of a row that carry loss."""
    return int((targets_of(row) != NO_TARGET).sum())


@dataclass(frozen=True)
class Batches:
    """All steps of a run for one process out of `num_processes`."""

    rows: RowSource
    batch_rows: int
    micro_rows: int
    seed: int
    rank: int = 0
    num_processes: int = 1
    length: int | None = None
    """Width of every micro-batch, filled up to `micro_rows`: one shape for all. Default: the longest row in it."""
    pins: bool = False
    """Put micro-batches into pinned memory, in the thread that makes them ahead."""
    weigh: Callable[[Row], int] = num_trained
    """What the summed loss is divided by, as counted in one row."""

    def step(self, index: int) -> Step:
        """The batch of a step. Micro-batches go round the processes; the same rows whatever their number."""
        epoch, numbers = rows_of_step(index, len(self.rows), self.batch_rows, self.seed)
        rows = [self.rows[number] for number in numbers]
        cuts = [rows[at : at + self.micro_rows] for at in range(0, len(rows), self.micro_rows)]
        num_rows = self.micro_rows if self.length else None
        local = [micro_batch(cut, self.length, num_rows) for cut in cuts[self.rank :: self.num_processes]]
        if len(local) < math.ceil(len(cuts) / self.num_processes):
            local.append(without_targets(micro_batch(cuts[0], self.length, num_rows)))
        if self.pins:
            local = [batch.pinned() for batch in local]
        trained, weight = sum(map(num_trained, rows)), sum(map(self.weigh, rows))
        num_pairs = sum(squared_lengths(row.doc_ids) for row in rows)
        num_tokens = sum(len(row.ids) for row in rows)
        return Step(index, epoch, numbers, tuple(local), num_tokens, max(weight, 1), trained, num_pairs)

    def steps(self, first: int, end: int, ahead: int = 0) -> Iterator[Step]:
        """Steps from `first` up to `end`; a thread makes `ahead` of them in advance."""
        if not ahead:
            yield from map(self.step, range(first, end))
            return
        ready: queue.Queue[Step | BaseException] = queue.Queue(maxsize=ahead)
        stopped = threading.Event()

        def put(item: Step | BaseException) -> None:
            while not stopped.is_set():
                try:
                    return ready.put(item, timeout=0.1)
                except queue.Full:
                    continue

        def make() -> None:
            try:
                for index in range(first, end):
                    if stopped.is_set():
                        return
                    put(self.step(index))
            except BaseException as error:  # is raised again where the step is asked for
                put(error)

        thread = threading.Thread(target=make, name="batches", daemon=True)
        thread.start()
        try:
            for _ in range(first, end):
                item = ready.get()
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            stopped.set()
            thread.join()
