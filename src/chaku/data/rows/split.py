"""Long conversations to segments at turn borders: each, rendered whole, fits the context, and no round is lost."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from chaku.chat.messages import Conversation, Message, Role
from chaku.chat.render import Rendered

Render = Callable[[Conversation], Rendered]


@dataclass(frozen=True, slots=True)
class Segment:
    """Some rounds of a conversation in a row, with the conversation's system prompt."""

    conversation: Conversation
    rendered: Rendered
    first_round: int
    end_round: int
    num_rounds: int
    num_cut: int = 0
    """Tokens past the context; they are in `conversation`, not in `rendered`."""
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
    if len(whole.input_ids) <= context:
        return [Segment(conversation, whole, 0, len(rounds), len(rounds))]
    segments: list[Segment] = []
    start = 0
    while start < len(rounds):
        end, rendered = _furthest(conversation, system, rounds, start, render, context)
        messages = (*system, *(message for turns in rounds[start:end] for message in turns))
        source = {**conversation.source, "rounds": [start, end, len(rounds)]}
        identity = conversation.id if len(rounds) == 1 else f"{conversation.id}#{len(segments)}"
        part = replace(conversation, id=identity, messages=messages, source=source)
        kept = rendered.cut(context)
        segments.append(
            Segment(
                part, kept, start, end, len(rounds),
                num_cut=len(rendered.input_ids) - len(kept.input_ids),
                num_trained_cut=rendered.num_trained - kept.num_trained,
                is_rejected=overlong == "reject" and len(rendered.input_ids) > context,
            )
        )  # fmt: skip
        start = end
    return segments


def _furthest(
    conversation: Conversation, system: list[Message], rounds: list[list[Message]], start: int, render: Render,
    context: int,
) -> tuple[int, Rendered]:  # fmt: skip
    """The last round border up to which everything from `start` fits, at least one round on, and what it renders to."""
    by_end: dict[int, Rendered] = {}

    def length(end: int) -> int:
        if end not in by_end:
            turns = tuple(message for turns_of_round in rounds[start:end] for message in turns_of_round)
            by_end[end] = render(replace(conversation, messages=(*system, *turns)))
        return len(by_end[end].input_ids)

    reach = 1
    while start + reach < len(rounds) and length(start + reach) <= context:
        reach *= 2
    ends = range(start + 1, min(start + reach, len(rounds)) + 1)
    # bisect returns either the first end or one whose predecessor it has seen to fit
    fitting = bisect.bisect_right(ends, context, key=length)
    end = ends[max(fitting - 1, 0)]
    length(end)
    return end, by_end[end]
