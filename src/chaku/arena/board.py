"""From comparisons to a leaderboard: who is rated, with what errors, and what the numbers rest on."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from chaku.comparison import Comparison, Style
from chaku.errors import UsageError
from chaku.rank.fit import BASE, Ratings, fit
from chaku.rank.flips import Flips, flips_to_lose_the_lead
from chaku.rank.games import Floats, Games, won_matrix
from chaku.rank.style import StyledRatings, differences, fit_with_style

Cluster = Literal["auto", "voter", "prompt", "day", "none"]
By = Literal["category", "language", "month", "source"]
FEATURES = ("tokens", "headers", "lists", "bold")
ENOUGH_VOTES = 30
"""With fewer, a row of the board says that it is still collecting."""
_FEWEST_CLUSTERS = 20
"""Robust errors by fewer clusters are too small."""


@dataclass(frozen=True)
class Options:
    """How to rate."""

    anchor: str | None = None
    anchor_rating: float = BASE
    prior: float = 0.0
    cluster: Cluster = "auto"
    style_control: bool = False
    level: float = 0.95


@dataclass(frozen=True)
class Row:
    """One model on the board."""

    name: str
    rating: float
    low: float
    high: float
    rank_low: int
    """The best rank that the games allow."""
    rank_high: int
    """The worst one."""
    votes: int

    @property
    def is_collecting(self) -> bool:
        """Whether the votes are too few to say much."""
        return self.votes < ENOUGH_VOTES


@dataclass(frozen=True, eq=False)
class Board:
    """Ratings and what they rest on."""

    rows: tuple[Row, ...]
    """The best first."""
    method: str
    data_sha256: str
    """Of the ids of all games that were rated, sorted."""
    num_games: int
    wins: Floats
    """(rows, rows) What the row's model got from the column's, in the order of `rows`."""
    effects: dict[str, tuple[float, float]]
    """With style control: each feature's log odds per standard deviation, and the standard error."""
    flips: Flips | None

    def as_json(self) -> dict[str, Any]:
        """`models` maps names to rating, low, high, rank_low, rank_high and votes."""
        return {
            "models": {
                row.name: {
                    "rating": round(row.rating, 2), "low": round(row.low, 2), "high": round(row.high, 2),
                    "rank_low": row.rank_low, "rank_high": row.rank_high, "votes": row.votes,
                }
                for row in self.rows
            },
            "method": self.method,
            "data_sha256": self.data_sha256,
            "num_games": self.num_games,
            **({"style": {name: {"effect": round(effect, 4), "error": round(error, 4)}
                          for name, (effect, error) in self.effects.items()}} if self.effects else {}),
            **({"votes_to_change_first": self.flips.num_games, "then_first": self.flips.rival} if self.flips else {}),
        }  # fmt: skip


def rate(comparisons: Sequence[Comparison], options: Options | None = None) -> Board:
    """Rate all that are counted. Raises UsageError where they give no ratings, with the reason."""
    options = options or Options()
    rated = [comparison for comparison in comparisons if comparison.counted]
    if options.style_control:
        rated = [comparison for comparison in rated if comparison.style_a and comparison.style_b]
    if not rated:
        what = "tells the style of both answers" if options.style_control else "is counted"
        raise UsageError(f"none of {len(comparisons):,} comparisons {what}: there is nothing to rate")
    games = Games.of(((game.model_a, game.model_b, game.score) for game in rated), _clusters(rated, options.cluster))
    styled = _styled(rated, games, options.prior) if options.style_control else None
    ratings = styled.ratings if styled is not None else fit(games, prior=options.prior)
    flips = None if options.style_control else flips_to_lose_the_lead(games, ratings, prior=options.prior)
    if options.anchor is not None:
        ratings = ratings.anchored(options.anchor, options.anchor_rating)
    rows, order = _rows(ratings, options.level)
    effects = (
        {}
        if styled is None
        else dict(zip(styled.features, zip(styled.effects, styled.errors, strict=True), strict=True))
    )
    return Board(
        rows,
        f"{ratings.method}; {options.level * 100:g} % intervals",
        hashlib.sha256("\n".join(sorted(game.id for game in rated)).encode()).hexdigest(),
        len(rated),
        won_matrix(games.cells, len(games.names))[np.ix_(order, order)],
        {name: (float(effect), float(error)) for name, (effect, error) in effects.items()},
        flips,
    )


def rate_by(comparisons: Sequence[Comparison], by: By, options: Options | None = None) -> dict[str, Board | UsageError]:
    """A board for each group; a group that gives no ratings has the reason instead."""
    value_of: dict[By, Callable[[Comparison], str | None]] = {
        "category": lambda game: game.category,
        "language": lambda game: game.language,
        "month": lambda game: game.created[:7] if game.created else None,
        "source": lambda game: game.source,
    }
    groups: dict[str, list[Comparison]] = {}
    for comparison in comparisons:
        groups.setdefault(value_of[by](comparison) or f"no {by}", []).append(comparison)
    boards: dict[str, Board | UsageError] = {}
    for name, group in sorted(groups.items()):
        try:
            boards[name] = rate(group, options)
        except UsageError as error:
            boards[name] = error
    return boards


def _rows(ratings: Ratings, level: float) -> tuple[tuple[Row, ...], list[int]]:
    low, high = ratings.intervals(level)
    best, worst = ratings.rank_intervals(level)
    order = np.argsort(-ratings.ratings, kind="stable").tolist()
    rows = tuple(
        Row(
            ratings.names[at],
            float(ratings.ratings[at]),
            float(low[at]),
            float(high[at]),
            int(best[at]),
            int(worst[at]),
            int(ratings.num_games[at]),
        )
        for at in order
    )
    return rows, order


def _styled(rated: Sequence[Comparison], games: Games, prior: float) -> StyledRatings:
    def counts(style: Style | None) -> list[int]:
        assert style is not None
        return [getattr(style, name) for name in FEATURES]

    first = np.array([counts(game.style_a) for game in rated], float)
    second = np.array([counts(game.style_b) for game in rated], float)
    features = differences(first, second)
    differing = [at for at in range(len(FEATURES)) if features[:, at].std() > 0]
    if not differing:
        raise UsageError("both answers of every game have the same style: there is nothing to control for")
    return fit_with_style(games, features[:, differing], [FEATURES[at] for at in differing], prior=prior)


def _clusters(rated: Sequence[Comparison], wanted: Cluster) -> list[str] | None:
    """What is not independent. A game without a cluster is a cluster of its own."""
    if wanted == "none":
        return None
    value_of: dict[str, Callable[[Comparison], str | None]] = {
        "auto": lambda game: game.cluster,
        "voter": lambda game: game.voter,
        "prompt": lambda game: game.prompt_id,
        "day": lambda game: game.created[:10] if game.created else None,
    }
    values = [value_of[wanted](game) for game in rated]
    sizes = Counter(value for value in values if value is not None)
    num_clusters = len(sizes) + values.count(None)
    if wanted == "auto" and (num_clusters < _FEWEST_CLUSTERS or num_clusters == len(rated)):
        return None
    if not sizes:
        raise UsageError(f"no comparison names its {wanted}", fix="choose another --cluster")
    return [f"\0{at}" if value is None else value for at, value in enumerate(values)]
