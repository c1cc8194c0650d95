"""Votes that show what a leaderboard looks like before anybody has voted: marked as examples, left out by default."""

from __future__ import annotations

import datetime as dt
import random

from chaku.comparison import Comparison, Outcome

NUM_VOTES = 120
_FIRST = dt.datetime(2026, 1, 5, 9, tzinfo=dt.UTC)
_CHANCES: tuple[tuple[Outcome, float], ...] = (("a", 0.5), ("b", 0.3), ("tie", 0.15), ("both_bad", 0.05))
"""Of the first contestant's game against the second."""
_TURNED: dict[Outcome, Outcome] = {"a": "b", "b": "a", "tie": "tie", "both_bad": "both_bad"}


def example_votes(first: str, second: str) -> list[Comparison]:
    """The same ones every time."""
    chance = random.Random(16)  # noqa: S311 - examples
    votes = []
    for number in range(NUM_VOTES):
        outcome = chance.choices([one for one, _ in _CHANCES], [weight for _, weight in _CHANCES])[0]
        is_turned = chance.random() < 0.5
        voter = f"example-{number % 12 + 1}"
        votes.append(
            Comparison(
                source="human",
                model_a=second if is_turned else first,
                model_b=first if is_turned else second,
                outcome=_TURNED[outcome] if is_turned else outcome,
                prompt_id=f"example-{number % 30 + 1}",
                cluster=voter,
                category=chance.choice(["code", "maths", "long", "multi_turn", "other"]),
                language=chance.choice(["en", "en", "en", "de"]),
                voter=voter,
                consent=True,
                created=(_FIRST + dt.timedelta(hours=13 * number)).isoformat(),
            )
        )
    return votes
