"""The live leaderboard: games of the store through filters to ratings, matrix, months, and what is left out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chaku.comparison import Comparison
from chaku.errors import UsageError

if TYPE_CHECKING:
    from chaku.arena.board import Board, Row


@dataclass(frozen=True)
class Filters:
    """What the reader chose; empty: all."""

    category: str = ""
    language: str = ""
    style_control: bool = False


@dataclass(frozen=True)
class Standings:
    """What a leaderboard shows."""

    board: Board | None
    """None where there are no ratings; `error` says why."""
    error: str | None
    games: list[Comparison]
    """Those that were rated."""
    counts: dict[str, dict[str, int]]
    """source, category and language: value to games that the other filters let through; vote: counted or not."""
    excluded: dict[str, int]
    """Reason to number of games that are not counted."""
    months: dict[str, tuple[int, Board | str]] = field(default_factory=dict)
    """Month to its games, and its ratings or why there are none."""


def standings(games: Sequence[Comparison], filters: Filters | None = None) -> Standings:
    """Rate what the filters let through."""
    filters = filters or Filters()
    chosen = [game for game in games if _fits(game, filters)]
    counted = [game for game in chosen if game.counted]
    board, error = _rate(chosen, filters)
    by_month: dict[str, list[Comparison]] = {}
    for game in counted:
        if game.created:
            by_month.setdefault(game.created[:7], []).append(game)
    months = {month: (len(some), _board_or_reason(some, filters)) for month, some in sorted(by_month.items())}
    return Standings(
        board,
        error,
        counted,
        {
            "source": dict(Counter(game.source for game in chosen)),
            "category": _count(games, filters, "category"),
            "language": _count(games, filters, "language"),
            "vote": {"counted": len(counted), "not counted": len(chosen) - len(counted)},
        },
        dict(Counter(game.reason or "no reason" for game in chosen if not game.counted)),
        months,
    )


def show_rows(board: Board | None) -> list[dict[str, Any]]:
    """The rows as JSON, the best first."""
    return [_show_row(row) for row in board.rows] if board is not None else []


def show_matrix(board: Board | None, games: Sequence[Comparison]) -> dict[str, Any]:
    """(models, models): points of the row's model against the column's, and games; also without ratings."""
    if board is not None:
        names = [row.name for row in board.rows]
    else:
        names = sorted({name for game in games for name in (game.model_a, game.model_b)})
    place = {name: at for at, name in enumerate(names)}
    wins = [[0.0] * len(names) for _ in names]
    played = [[0] * len(names) for _ in names]
    for game in games:
        a, b = place.get(game.model_a), place.get(game.model_b)
        if a is not None and b is not None:
            wins[a][b] += game.score
            wins[b][a] += 1 - game.score
            played[a][b] += 1
            played[b][a] += 1
    return {"models": names, "wins": wins, "games": played}


def _fits(game: Comparison, filters: Filters, *, but: str = "") -> bool:
    return all(
        name == but or not wanted or (getattr(game, name) or "unknown") == wanted
        for name, wanted in (("category", filters.category), ("language", filters.language))
    )


def _count(games: Sequence[Comparison], filters: Filters, name: str) -> dict[str, int]:
    fitting = (game for game in games if game.counted and _fits(game, filters, but=name))
    return dict(Counter(getattr(game, name) or "unknown" for game in fitting).most_common())


def _rate(games: Sequence[Comparison], filters: Filters) -> tuple[Board | None, str | None]:
    """Ratings, with a prior (which the method line tells) where the games give none without: in a young arena."""
    from chaku.arena.board import Options, rate  # numpy comes with the first leaderboard, not with the gateway

    why = None
    for prior in (0.0, 1.0):
        try:
            return rate(games, Options(style_control=filters.style_control, prior=prior)), None
        except UsageError as error:
            why = why or error.message
    return None, why


def _board_or_reason(games: Sequence[Comparison], filters: Filters) -> Board | str:
    board, error = _rate(games, filters)
    return board if board is not None else error or ""


def _show_row(row: Row) -> dict[str, Any]:
    return {
        "model": row.name,
        "rating": round(row.rating, 2),
        "low": round(row.low, 2),
        "high": round(row.high, 2),
        "rank_low": row.rank_low,
        "rank_high": row.rank_high,
        "votes": row.votes,
        "collecting": row.is_collecting,
    }
