"""Games between players, as arrays."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from chaku.errors import UsageError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_MAX_DENSE_CELLS = 50_000_000


@dataclass(frozen=True)
class Cells:
    """Games that are alike, counted: each (first, second, score) once, with first < second."""

    first: Ints
    second: Ints
    score: Floats
    """Of `first`."""
    count: Floats


@dataclass(frozen=True, eq=False)
class Games:
    """Games as arrays of one length n. Raises UsageError where the arrays are not games."""

    names: tuple[str, ...]
    """The players."""
    first: Ints
    """(n,) Indices into `names`: who stood first."""
    second: Ints
    """(n,) Who stood second."""
    score: Floats
    """(n,) What the first player got: 1 for a win, 0.5 for a tie, 0 for a loss, or a grade between them."""
    cluster: Ints | None = None
    """(n,) Games of one cluster (a prompt, a voter, a day) are not independent. Any integers from 0. None: all are."""

    def __post_init__(self) -> None:
        lengths = {len(self.first), len(self.second), len(self.score)}
        if self.cluster is not None:
            lengths.add(len(self.cluster))
        if len(lengths) > 1:
            raise UsageError(f"the arrays of the games have different lengths: {', '.join(map(str, sorted(lengths)))}")
        if not len(self.first):
            raise UsageError("there are no games")
        players = np.concatenate([self.first, self.second])
        if players.min() < 0 or players.max() >= len(self.names):
            raise UsageError(f"a game's player is not one of the {len(self.names)} names")
        if not ((self.score >= 0) & (self.score <= 1)).all():
            raise UsageError("a game's score is not between 0 and 1")
        if (against_self := self.first == self.second).any():
            raise UsageError(f"{self.names[self.first[against_self][0]]} plays against itself")
        if self.cluster is not None and self.cluster.min() < 0:
            raise UsageError("a cluster's number is negative")

    @classmethod
    def of(cls, rows: Iterable[tuple[str, str, float]], clusters: Iterable[Hashable] | None = None) -> Games:
        """Games from (first, second, score of the first) by name, in sorted order of the names."""
        rows = list(rows)
        names = tuple(sorted({name for first, second, _ in rows for name in (first, second)}))
        place = {name: index for index, name in enumerate(names)}
        number: dict[Hashable, int] = {}
        return cls(
            names,
            np.array([place[first] for first, _, _ in rows], np.int64),
            np.array([place[second] for _, second, _ in rows], np.int64),
            np.array([score for _, _, score in rows], np.float64),
            None
            if clusters is None
            else np.array([number.setdefault(each, len(number)) for each in clusters], np.int64),
        )

    def __len__(self) -> int:
        return len(self.first)

    def __getitem__(self, chosen: NDArray[np.bool_] | Ints) -> Games:
        """Some of the games, among the same players."""
        cluster = None if self.cluster is None else self.cluster[chosen]
        return Games(self.names, self.first[chosen], self.second[chosen], self.score[chosen], cluster)

    @cached_property
    def cells(self) -> Cells:
        """The games, counted. All that a fit needs to know while games are independent."""
        is_turned = self.first > self.second
        first = np.where(is_turned, self.second, self.first)
        second = np.where(is_turned, self.first, self.second)
        score = np.where(is_turned, 1 - self.score, self.score)
        halves = score * 2
        if (halves == np.rint(halves)).all():
            grades, grade = np.array([0.0, 0.5, 1.0]), halves.astype(np.int64)
        else:
            grades, grade = np.unique(score, return_inverse=True)
        num = len(self.names)
        key = (first * num + second) * len(grades) + grade
        if num * num * len(grades) <= _MAX_DENSE_CELLS:
            counts = np.bincount(key, minlength=num * num * len(grades))
            keys = np.flatnonzero(counts)
            counts = counts[keys]
        else:
            keys, counts = np.unique(key, return_counts=True)
        pair, grade = np.divmod(keys, len(grades))
        return Cells(pair // num, pair % num, grades[grade], counts.astype(np.float64))

    @cached_property
    def num_games(self) -> Ints:
        """(players,) Games of each player."""
        size = len(self.names)
        return np.bincount(self.first, minlength=size) + np.bincount(self.second, minlength=size)


def won_matrix(cells: Cells, size: int, counts: Floats | None = None) -> Floats:
    """(..., size, size): what the row's player got from the column's, ties as halves.

    `counts` (..., cells) are other counts of the same cells, such as a bootstrap's.
    """
    counts = cells.count if counts is None else counts
    won = np.zeros((*counts.shape[:-1], size, size))
    pair = cells.first * size + cells.second
    turned = cells.second * size + cells.first
    flat = won.reshape(-1, size * size)
    for row, weights in zip(flat, counts.reshape(-1, counts.shape[-1]), strict=True):
        row += np.bincount(pair, weights * cells.score, size * size)
        row += np.bincount(turned, weights * (1 - cells.score), size * size)
    return won


def pair_sums(first: Ints, second: Ints, weights: Floats, size: int) -> Floats:
    """(size, size): what weighted games add up to in (e_first - e_second) (e_first - e_second)ᵀ."""
    half = np.asarray(np.bincount(first * size + second, weights, size * size), np.float64).reshape(size, size)
    return laplacian(half + half.T)


def laplacian(weights: Floats) -> Floats:
    """(..., players, players): the graph Laplacian of symmetric weights, whose diagonal is 0."""
    result = -weights
    size = weights.shape[-1]
    result[..., range(size), range(size)] += weights.sum(axis=-1)
    return result
