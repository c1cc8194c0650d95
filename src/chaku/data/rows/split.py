"""Long conversations to segments at turn borders: each, rendered whole, fits the context, and no round is lost."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from chaku.chat.messages import Conversation, Message, Role


@dataclass(frozen=True, slots=True)
class Rows:
    """A conversation as ids, and 1 where a token carries loss."""

    ids: Sequence[int]
    loss_mask: Sequence[int]

    @property
    def num_trained(self) -> int:
        """Tokens that carry loss."""
        return sum(self.loss_mask)

    def cut(self, length: int) -> Rows:
        """The first `length` tokens."""
        return Rows(self.ids[:length], self.loss_mask[:length])


Render = Callable[[Conversation], Rows]


@dataclass(frozen=True, slots=True)
class Segment:
    """Some rounds of a conversation in a row, with the conversation's system prompt."""

    conversation: Conversation
    rows: Rows
    first_round: int
    end_round: int
    num_rounds: int
    num_cut: int = 0
    """Tokens past the context; they are in `conversation`, not in `rows`."""
    num_trained_cut: int = 0
    is_rejected: bool = False


def rounds_of(messages: Sequence[Message]) -> tuple[list[Message], list[list[Message]]]:
    """The system prompt (or nothing), and the rounds: a user turn and all that answers it."""
    first = next((index for index, message in enumerate(messages) if message.role is Role.USER), len(messages))
    rounds: list[list[Message]] = []
    for message in messages[first:]:
        if message.role is Role.USER:
            rounds.append([])
        rounds[-1].append(message)
    return list(messages[:first]), rounds


def split(
    conversation: Conversation, render: Render, context: int, overlong: Literal["cut", "reject"]
) -> list[Segment]:
    """Segments in order; together they hold every round exactly once. A conversation that fits comes back itself.

    Greedy: each takes as many rounds as fit. One round that does not fit alone is its own segment, cut or rejected.
    """
    whole = render(conversation)
    system, rounds = rounds_of(conversation.messages)
    if len(whole.ids) <= context:
        return [Segment(conversation, whole, 0, len(rounds), len(rounds))]
    segments: list[Segment] = []
    start = 0
    while start < len(rounds):
        end, rows = _furthest(conversation, system, rounds, start, render, context)
        messages = (*system, *(message for turns in rounds[start:end] for message in turns))
        source = {**conversation.source, "rounds": [start, end, len(rounds)]}
        identity = conversation.id if len(rounds) == 1 else f"{conversation.id}#{len(segments)}"
        own = replace(conversation, id=identity, messages=messages, source=source)
        kept = rows.cut(context)
        segments.append(
            Segment(
                own, kept, start, end, len(rounds),
                num_cut=len(rows.ids) - len(kept.ids), num_trained_cut=rows.num_trained - kept.num_trained,
                is_rejected=overlong == "reject" and len(rows.ids) > context,
            )
        )  # fmt: skip
        start = end
    return segments


def _furthest(
    conversation: Conversation, system: list[Message], rounds: list[list[Message]], start: int, render: Render,
    context: int,
) -> tuple[int, Rows]:  # fmt: skip
    """The last round border up to which everything from `start` fits, at least one round on, and its rows."""
    rendered: dict[int, Rows] = {}

    def length(end: int) -> int:
        if end not in rendered:
            turns = tuple(message for one in rounds[start:end] for message in one)
            rendered[end] = render(replace(conversation, messages=(*system, *turns)))
        return len(rendered[end].ids)

    reach = 1
    while start + reach < len(rounds) and length(start + reach) <= context:
        reach *= 2
    ends = range(start + 1, min(start + reach, len(rounds)) + 1)
    # bisect returns either the first end or one whose predecessor it has seen to fit
    fitting = bisect.bisect_right(ends, context, key=length)
    end = ends[max(fitting - 1, 0)]
    length(end)
    return end, rendered[end]
