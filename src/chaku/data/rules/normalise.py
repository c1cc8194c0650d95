"""Turns into the one order that templates know: system?, then user, answer, user, answer ... ending with an answer."""

from __future__ import annotations

from dataclasses import replace

from chaku.chat.messages import Conversation, Message, Role
from chaku.data.ledger import Decision, Flag
from chaku.data.rules.personal import quote


def normalise(conversation: Conversation, system: str | None = None) -> Decision:
    """Drop what no answer belongs to, join turns of one speaker, and say so in flags.

    `system` becomes the system prompt of a conversation that has none.
    """
    flags: list[Flag] = []
    prompts, turns = _lift_system(conversation.messages, flags)
    first_user = next((index for index, turn in enumerate(turns) if turn.role is Role.USER), len(turns))
    if not any(turn.role is Role.ASSISTANT for turn in turns):
        return Decision(conversation.id, None, "no_assistant", flags=tuple(flags))
    if first_user:
        flags.append(Flag("leading_assistant", first_user, _quote(turns[0])))
        turns = turns[first_user:]
    turns = _merge(_stop_at_empty(turns, flags), flags)
    while turns and turns[-1].role is not Role.ASSISTANT:
        flags.append(Flag("trailing_user", len(turns[-1].content), _quote(turns[-1])))
        turns.pop()
    if not turns:
        rule = "no_user" if first_user == len(conversation.messages) - len(prompts) else "no_assistant"
        return Decision(conversation.id, None, rule, flags=tuple(flags))
    if wrong := _wrong_tool_turn(turns):
        return Decision(conversation.id, None, "bad_tool_order", note=wrong, flags=tuple(flags))
    if prompts:
        turns.insert(0, replace(prompts[0], content="\n\n".join(prompt.content for prompt in prompts)))
    elif system is not None:
        turns.insert(0, Message(Role.SYSTEM, system))
    return Decision(conversation.id, replace(conversation, messages=tuple(turns)), flags=tuple(flags))


def _quote(message: Message) -> str:
    return f"{message.role}: {quote(message.content)}"


def _lift_system(messages: tuple[Message, ...], flags: list[Flag]) -> tuple[list[Message], list[Message]]:
    prompts: list[Message] = []
    turns: list[Message] = []
    for message in messages:
        if message.role is not Role.SYSTEM:
            turns.append(message)
        elif turns:
            flags.append(Flag("late_system", len(message.content), _quote(message)))
        elif message.content.strip():
            prompts.append(message)
    return prompts, turns


def _is_empty(message: Message) -> bool:
    says_nothing = not message.content.strip() and not message.tool_calls
    return says_nothing and message.role is not Role.TOOL


def _stop_at_empty(turns: list[Message], flags: list[Flag]) -> list[Message]:
    for index, turn in enumerate(turns):
        if _is_empty(turn):
            flags.append(Flag("empty_turn", len(turns) - index, f"turn {index + 1} of {len(turns)}"))
            return turns[:index]
    return list(turns)


def _merge(turns: list[Message], flags: list[Flag]) -> list[Message]:
    merged: list[Message] = []
    for turn in turns:
        before = merged[-1] if merged else None
        if before is not None and turn.role is before.role and turn.role is not Role.TOOL and not before.tool_calls:
            flags.append(Flag("merged_turns", None, _quote(turn)))
            reasoning = "\n\n".join(filter(None, (before.reasoning, turn.reasoning))) or None
            content = f"{before.content}\n\n{turn.content}"
            weight = min(before.weight, turn.weight)
            merged[-1] = replace(
                before, content=content, reasoning=reasoning, tool_calls=turn.tool_calls, weight=weight
            )
        else:
            merged.append(turn)
    return merged


def _wrong_tool_turn(turns: list[Message]) -> str | None:
    for index, turn in enumerate(turns):
        before = turns[index - 1] if index else None
        asked = before is not None and (bool(before.tool_calls) or before.role is Role.TOOL)
        if turn.role is Role.TOOL and not asked:
            return f"turn {index + 1} is a tool result without a call before it"
    return None
