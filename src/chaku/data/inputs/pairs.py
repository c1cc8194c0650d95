"""Preference records: two answers to the same prompt, of which people or a judge chose one."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from chaku.chat.messages import Conversation, Message, Role
from chaku.data.inputs.fields import BadMessage, Fields, Imported, identity_of, source_of, system_messages
from chaku.data.inputs.turns import answer_messages, is_turn_list, prompt_messages, read_transcript

CHOSEN, REJECTED = "chosen", "rejected"
"""The two documents of a pair, in this order, are named ID/chosen and ID/rejected."""


@dataclass(frozen=True, slots=True)
class Pair(Conversation):
    """A conversation that ends with the chosen answer, beside the same one with the rejected answer."""

    rejected: tuple[Message, ...] = ()
    """Prompt and rejected answer, as `messages` holds prompt and chosen answer."""

    @classmethod
    def from_json(cls, json: Mapping[str, Any]) -> Pair:
        """Read a line that `to_json` wrote. Raises InvalidRequest for what is none."""
        chat = Conversation.from_json(json)
        rejected = Conversation.from_json({"messages": json.get("rejected")}).messages
        return cls(chat.id, chat.messages, chat.tools, chat.source, rejected)

    def to_json(self) -> dict[str, Any]:
        """A conversation's line with the rejected side beside it, for the build's own files."""
        return Conversation.to_json(self) | {"rejected": [message.to_json() for message in self.rejected]}

    def sides(self) -> tuple[Conversation, Conversation]:
        """The chosen and the rejected conversation as documents: only what differs carries loss.

        Raises BadMessage as `parts` does.
        """
        prompt, chosen, rejected = self.parts()
        read_only = tuple(
            replace(message, weight=0) if message.role is Role.ASSISTANT else message for message in prompt
        )
        return (
            Conversation(f"{self.id}/{CHOSEN}", (*read_only, *chosen), self.tools, self.source),
            Conversation(f"{self.id}/{REJECTED}", (*read_only, *rejected), self.tools, self.source),
        )

    def parts(self) -> tuple[tuple[Message, ...], tuple[Message, ...], tuple[Message, ...]]:
        """Prompt, chosen answer and rejected answer. Raises BadMessage where they are not a pair."""
        same = (left == right for left, right in zip(self.messages, self.rejected, strict=False))
        shared = sum(itertools.takewhile(bool, same))
        prompt, chosen, rejected = self.messages[:shared], self.messages[shared:], self.rejected[shared:]
        if not chosen or not rejected:
            raise BadMessage("both answers are the same")
        if chosen[0].role is not Role.ASSISTANT or rejected[0].role is not Role.ASSISTANT:
            raise BadMessage("the two answers belong to different prompts")
        return prompt, chosen, rejected


def pair_line(pair: Pair, group: str) -> dict[str, Any]:
    """A line of a built set's pairs-*.jsonl. Raises BadMessage as `parts` does."""
    sides = {
        name: [message.to_json() for message in messages]
        for name, messages in zip(("prompt", CHOSEN, REJECTED), pair.parts(), strict=True)
    }
    return {"id": pair.id, **sides, "source": dict(pair.source), "group": group}


def pair_of_line(line: Mapping[str, Any]) -> Pair:
    """What `pair_line` wrote."""
    prompt, chosen, rejected = (
        tuple(Message.from_json(message) for message in line[name]) for name in ("prompt", CHOSEN, REJECTED)
    )
    return Pair(line["id"], (*prompt, *chosen), source=line["source"], rejected=(*prompt, *rejected))


_CHOSEN_KEYS = ("chosen", "preferred_output", "chosen_response", "response_chosen")
_REJECTED_KEYS = ("rejected", "non_preferred_output", "rejected_response", "response_rejected")


def is_pair(value: Any) -> bool:
    """Whether a record has a chosen and a rejected answer."""
    return isinstance(value, dict) and any(value.get(key) is not None for key in _CHOSEN_KEYS) and any(
        value.get(key) is not None for key in _REJECTED_KEYS
    )  # fmt: skip


def read_pair(value: dict[str, Any]) -> Imported:
    """DPO records, hh-rlhf's two transcripts, OpenAI's preference format, two lists of messages."""
    record, unused = Fields(value), Counter[str]()
    prompt = system_messages(record)
    given = record.get("prompt", "question", "instruction", "conversations", "conversation", "messages")
    if given is None and (outer := record.get("input")) is not None:
        given = outer.get("messages") if isinstance(outer, dict) else outer
    prompt += prompt_messages(given, unused) if given is not None else []
    if extra := record.text("context", "input") if not isinstance(record.value.get("input"), dict) else "":
        prompt.append(Message(Role.USER, extra))
    chosen = _side(record.get(*_CHOSEN_KEYS), prompt, unused)
    rejected = _side(record.get(*_REJECTED_KEYS), prompt, unused)
    pair = Pair(identity_of(record), tuple(chosen), source=source_of(record), rejected=tuple(rejected))
    pair.parts()
    unused.update(record.left_over())
    return Imported("preference pair", [pair], unused=unused)


def _side(value: Any, prompt: list[Message], unused: Counter[str]) -> list[Message]:
    """One side: an answer to the prompt, or the whole conversation, which then has the prompt inside."""
    if isinstance(value, str) and (whole := read_transcript(value)):
        return whole
    messages = answer_messages(value, unused)
    if any(message.role is Role.USER for message in messages):
        is_led = messages[0].role is Role.SYSTEM
        return [*(message for message in prompt if message.role is Role.SYSTEM and not is_led), *messages]
    return [*prompt, *messages]


def is_battle(value: Any) -> bool:
    """Whether a record holds the two conversations of an arena."""
    return isinstance(value, dict) and all(is_turn_list(value.get(f"conversation_{side}")) for side in "ab")


def read_battle(value: dict[str, Any]) -> Imported:
    """An arena's record: the winner is the chosen side; a tie gives two conversations. Raises BadMessage."""
    record, unused = Fields(value), Counter[str]()
    sides = [tuple(prompt_messages(record.get(f"conversation_{side}"), unused)) for side in "ab"]
    models = [record.text(f"model_{side}") for side in "ab"]
    winner = record.text("winner").lower()
    identity, source = identity_of(record), source_of(record)
    if winner in ("model_a", "model_b", "a", "b"):
        chosen = 0 if winner.endswith("a") else 1
        facts = {**source, "chosen_model": models[chosen], "rejected_model": models[1 - chosen]}
        pair = Pair(identity, sides[chosen], source=facts, rejected=sides[1 - chosen])
        pair.parts()
        conversations: list[Conversation] = [pair]
    elif winner == "tie":
        conversations = [
            Conversation(identity, side, source={**source, "model": model})
            for side, model in zip(sides, models, strict=True)
        ]
    else:
        raise BadMessage(f"the winner is {winner[:40]!r}: neither answer was preferred")
    unused.update(record.left_over())
    return Imported("arena battle", conversations, unused=unused)
