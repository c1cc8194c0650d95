"""What a run shows of its judge without further calls: unread texts, changes of mind, a liking for the first answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from chaku.evals.records import Judgement
from chaku.statistics.agreement import Share, binomial_p, share

Key = tuple[str, frozenset[str], int, int, int, str]
"""What was judged: question, models, turn, sample, repeat, judge. Both orders have the same."""


@dataclass(frozen=True)
class Health:
    """Shares with exact intervals; those without a case say nothing."""

    unread: Share
    """Judgements that failed or could not be read."""
    flips: Share
    """Of the pairs judged in both orders: those with another winner when the sides were exchanged."""
    first: Share
    """Of the verdicts with a winner, on pairs judged in both orders: those for the answer shown first. Without bias it
    is half."""
    first_p: float
    """The chance of a share so far from half, if place does not matter."""


def health_of(judgements: Sequence[Judgement]) -> Health:
    """The health of the judging of a run."""
    orders = winners_by_order(judgements)
    both = [winners for winners in orders.values() if len(winners) > 1]
    decided = [one.outcome for one in judgements if one.outcome in ("a", "b") and len(orders[_key(one)]) > 1]
    num_first = decided.count("a")
    return Health(
        share(sum(judgement.state != "ok" for judgement in judgements), len(judgements)),
        share(sum(len(set(winners)) > 1 for winners in both), len(both)),
        share(num_first, len(decided)),
        binomial_p(num_first, len(decided)),
    )


def winners_by_order(judgements: Iterable[Judgement]) -> dict[Key, list[str | None]]:
    """The winner's name, None for a tie, for each order in which a pair was judged and read."""
    found: dict[Key, list[str | None]] = {}
    for one in judgements:
        if one.outcome is None:
            continue
        winner = None if one.outcome == "tie" else one.models["ab".index(one.outcome)]
        found.setdefault(_key(one), []).append(winner)
    return found


def _key(one: Judgement) -> Key:
    return one.question_id, frozenset(one.models), one.turn, one.sample, one.repeat, one.judge
