"""One turn of a conversation in anybody's words: who speaks, what, with which calls, and whether it is trained on."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import Any

from chaku.chat.messages import Message, Role, ToolCall
from chaku.data.inputs.fields import BadMessage, Fields, text_of

ROLES = {
    "human": Role.USER, "user": Role.USER, "prompter": Role.USER, "question": Role.USER, "customer": Role.USER,
    "gpt": Role.ASSISTANT, "chatgpt": Role.ASSISTANT, "assistant": Role.ASSISTANT, "bing": Role.ASSISTANT,
    "bard": Role.ASSISTANT, "model": Role.ASSISTANT, "chatbot": Role.ASSISTANT, "bot": Role.ASSISTANT,
    "ai": Role.ASSISTANT, "answer": Role.ASSISTANT, "claude": Role.ASSISTANT, "system": Role.SYSTEM,
    "developer": Role.SYSTEM, "tool": Role.TOOL, "function": Role.TOOL, "observation": Role.TOOL, "ipython": Role.TOOL,
    "function_response": Role.TOOL, "function-response": Role.TOOL, "tool_response": Role.TOOL,
}  # fmt: skip
_CALLERS = frozenset(("function_call", "function-call", "tool_call"))
_SPEAKER_KEYS = ("from", "role", "speaker", "sender", "author")
_TEXT_KEYS = ("value", "content", "text", "message", "utterance")


def read_turns(turns: list[Fields], unused: Counter[str]) -> list[Message]:
    """Messages of a list of turns. Keys that no reader uses are counted in `unused`."""
    messages = [read_turn(turn) for turn in turns]
    for turn in turns:
        unused.update(f"turn.{key}" for key in turn.left_over())
    return messages


def read_turn(turn: Fields) -> Message:
    """One turn in OpenAI's, ShareGPT's or a chat export's words. Raises BadMessage naming what can't be read."""
    speaker = str(turn.get(*_SPEAKER_KEYS) or "").strip().lower()
    if speaker in _CALLERS:
        return Message(Role.ASSISTANT, tool_calls=_spoken_calls(turn), weight=_weight(turn, Role.ASSISTANT))
    if speaker not in ROLES:
        raise BadMessage(f"the speaker is {speaker[:40]!r}, known are {', '.join(sorted({*ROLES, *_CALLERS}))}")
    role = ROLES[speaker]
    message = Message.from_json(
        {
            "role": str(role),
            "content": turn.get(*_TEXT_KEYS),
            "reasoning_content": turn.get("reasoning_content", "reasoning", "thinking"),
            "tool_calls": turn.get("tool_calls"),
            "tool_call_id": turn.get("tool_call_id"),
            "name": turn.get("name"),
            "weight": _weight(turn, role),
        }
    )
    old_call = turn.get("function_call")
    if old_call is not None:
        message = replace(message, tool_calls=(*message.tool_calls, ToolCall.from_json({"function": old_call})))
    return message


def _spoken_calls(turn: Fields) -> tuple[ToolCall, ...]:
    """Calls that were written as JSON text, one object or a list of them."""
    text = turn.get(*_TEXT_KEYS)
    try:
        value: Any = json.loads(text) if isinstance(text, str) else text
    except ValueError as error:
        raise BadMessage(f"a function call is not JSON: {error}") from None
    calls = value if isinstance(value, list) else [value]
    return tuple(ToolCall.from_json({"function": call}) for call in calls)


# Switches of the common trainers: OpenAI's and Mistral's weight, axolotl's train and training, ms-swift's loss,
# torchtune's masked. True at `masked` means not trained.
_SWITCHES = ("weight", "train", "training", "trainable", "loss", "masked", "mask")
_REFUSED = ("train_detail", "training_detail")


def _weight(turn: Fields, role: Role) -> int:
    for key in _REFUSED:
        if turn.value.get(key):
            raise BadMessage(f"{key} trains on parts of a turn, which is not known here")
    weight = 1
    for key in _SWITCHES:
        value = turn.get(key)
        if value is None:
            continue
        if value not in (0, 1):
            raise BadMessage(f"{key} is {value!r}; only yes and no (1 and 0) are known")
        is_trained = bool(value) != key.startswith("mask")
        if role is Role.ASSISTANT:
            weight = min(weight, int(is_trained))
        elif is_trained and key.startswith("train"):
            raise BadMessage(f"{key} asks to train on a turn of the {role}, and only answers are trained on")
    return weight if role is Role.ASSISTANT else 1


def is_turn(value: Any) -> bool:
    """Whether an object says who speaks and what."""
    return isinstance(value, dict) and any(key in value for key in _SPEAKER_KEYS) and any(
        key in value for key in (*_TEXT_KEYS, "tool_calls", "function_call")
    )  # fmt: skip


def is_turn_list(value: Any) -> bool:
    """A list of turns is itself one record, not a list of records."""
    return isinstance(value, list) and bool(value) and all(map(is_turn, value))


_MARKS = (
    ("\n\nHuman:", "\n\nAssistant:"), ("### Human:", "### Assistant:"), ("### Instruction:", "### Response:"),
    ("<human>:", "<bot>:"), ("### User:", "### Assistant:"),
)  # fmt: skip


def read_transcript(text: str) -> list[Message] | None:
    """Messages of a conversation that was written as one text with marks before each turn; None if it is none."""
    for asked, answered in _MARKS:
        start = f"\n\n{text.lstrip()}" if asked.startswith("\n") else text.lstrip()
        if not start.startswith(asked) or answered not in start:
            continue
        messages: list[Message] = []
        for number, piece in enumerate(start.split(asked)[1:]):
            question, *answers = piece.split(answered)
            if number == 0 or question.strip():
                messages.append(Message(Role.USER, question.strip()))
            messages += [Message(Role.ASSISTANT, answer.strip()) for answer in answers]
        return messages
    return None


def prompt_messages(value: Any, unused: Counter[str]) -> list[Message]:
    """A prompt: text, a transcript, or a list of turns."""
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return read_turns([Fields(turn) for turn in value], unused)
    text = text_of(value)
    return read_transcript(text) or [Message(Role.USER, text)]


def answer_messages(value: Any, unused: Counter[str]) -> list[Message]:
    """An answer: text, one turn, or a list of turns."""
    if isinstance(value, dict):
        return read_turns([Fields(value)], unused)
    if isinstance(value, list) and value and all(isinstance(turn, dict) for turn in value):
        return read_turns([Fields(turn) for turn in value], unused)
    return [Message(Role.ASSISTANT, text_of(value))]
