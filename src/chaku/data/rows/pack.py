"""Which documents share a row: best fit, longest first, no document cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_DOCUMENTS = 1 << 16
"""doc_ids are uint16."""


@dataclass(frozen=True)
class RowLayout:
    """Row r holds documents `order[starts[r]:starts[r + 1]]`."""

    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    @property
    def num_rows(self) -> int:
        """Rows altogether."""
        return len(self.starts) - 1


def best_fit(lengths: NDArray[np.int64], row_length: int, seed: int, max_documents: int = MAX_DOCUMENTS) -> RowLayout:
    """Put each document, longest first, into the row with the least space left that takes it.

    O(n) but for one sort: rows wait in one stack for each number of free tokens, and a bit set of the non-empty stacks
    answers "the smallest space of at least n". Rows come in an order shuffled by `seed`.
    """
    if len(lengths) and int(lengths.max()) > row_length:
        raise ValueError(f"a document of {int(lengths.max())} tokens does not fit a row of {row_length}")
    rows: list[list[int]] = []
    stacks: list[list[int]] = [[] for _ in range(row_length + 1)]
    filled = 0  # bit s: stacks[s] is not empty
    for document in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[document])
        above = filled >> length
        if above:
            space = length + (above & -above).bit_length() - 1
            row = stacks[space].pop()
            if not stacks[space]:
                filled &= ~(1 << space)
        else:
            space, row = row_length, len(rows)
            rows.append([])
        rows[row].append(document)
        if space > length and len(rows[row]) < max_documents:
            stacks[space - length].append(row)
            filled |= 1 << (space - length)
    return _shuffled(rows, seed)


def pairs_together(lengths: NDArray[np.int64], row_length: int | None, seed: int) -> RowLayout:
    """The same for documents of which 2i and 2i + 1 belong together: they stay neighbours. None: a row per pair."""
    of_pairs = lengths.reshape(-1, 2).sum(axis=1)
    if row_length is None:
        layout = row_per_document(of_pairs, seed)
    else:
        layout = best_fit(of_pairs, row_length, seed, MAX_DOCUMENTS // 2)
    documents = (layout.order[:, None] * 2 + np.arange(2)).reshape(-1)
    return RowLayout(documents.astype(np.int64), layout.starts * 2)


def row_per_document(lengths: NDArray[np.int64], seed: int) -> RowLayout:
    """Every document in a row of its own."""
    return _shuffled([[document] for document in range(len(lengths))], seed)


def _shuffled(rows: Sequence[Sequence[int]], seed: int) -> RowLayout:
    shuffled = np.random.default_rng(seed).permutation(len(rows)).tolist()
    order = [document for row in shuffled for document in rows[row]]
    starts = np.cumsum([0, *(len(rows[row]) for row in shuffled)])
    return RowLayout(np.array(order, np.int64), starts.astype(np.int64))
