"""The stage that masks personal data in all of a conversation, before anything of it is judged, quoted or kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import orjson

from chaku.chat.messages import Conversation, Message, ToolCall
from chaku.data.ledger import Decision, Flag
from chaku.data.rules.personal import find, masked
from chaku.data.rules.table import PII_RULES, Action
from chaku.protocol.json_scan import loads

_BORDER = "\n\x00\n"


def judge_personal(conversation: Conversation, actions: Mapping[str, Action]) -> Decision:
    """Mask, drop or flag by each rule; what was found is counted and never quoted."""
    text = _BORDER.join(_texts(conversation))
    findings = [finding for finding in find(text) if actions[finding.rule] != "off"]
    counts = Counter(finding.rule for finding in findings)
    flags: list[Flag] = []
    for rule in PII_RULES:
        if rule not in counts:
            continue
        if actions[rule] == "drop":
            return Decision(conversation.id, None, rule, counts[rule], flags=tuple(flags))
        flags.append(Flag(rule, counts[rule], "redacted" if actions[rule] == "redact" else None))
    rules = frozenset(rule for rule in counts if actions[rule] == "redact")
    if rules:
        conversation = _masked_conversation(conversation, rules)
    return Decision(conversation.id, conversation, flags=tuple(flags))


def _texts(conversation: Conversation) -> Iterator[str]:
    for message in conversation.messages:
        yield message.content
        if message.reasoning:
            yield message.reasoning
        for call in message.tool_calls:
            yield call.name
            yield call.arguments
            yield call.id
        yield from filter(None, (message.name, message.tool_call_id))
    for facts in (conversation.tools, conversation.source):
        if facts:
            yield orjson.dumps(facts, default=str).decode()


def _masked_conversation(conversation: Conversation, rules: frozenset[str]) -> Conversation:
    return replace(
        conversation,
        messages=tuple(_masked_message(message, rules) for message in conversation.messages),
        tools=tuple(_masked_value(tool, rules) for tool in conversation.tools),
        source=_masked_value(dict(conversation.source), rules),
    )


def _masked_message(message: Message, rules: frozenset[str]) -> Message:
    def text(value: str | None) -> str | None:
        return None if value is None else masked(value, rules)

    calls = tuple(
        ToolCall(masked(call.id, rules), masked(call.name, rules), _masked_json(call.arguments, rules))
        for call in message.tool_calls
    )
    return replace(
        message, content=masked(message.content, rules), reasoning=text(message.reasoning), tool_calls=calls,
        name=text(message.name), tool_call_id=text(message.tool_call_id),
    )  # fmt: skip


def _masked_json(text: str, rules: frozenset[str]) -> str:
    """Mask inside a call's arguments so that they stay JSON."""
    if masked(text, rules) == text:
        return text
    try:
        return orjson.dumps(_masked_value(loads(text), rules)).decode()
    except orjson.JSONDecodeError:
        return masked(text, rules)


def _masked_value(value: Any, rules: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        return {masked(str(key), rules): _masked_value(item, rules) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_masked_value(item, rules) for item in value]
    if isinstance(value, str):
        return masked(value, rules)
    if isinstance(value, int) and not isinstance(value, bool) and (hidden := masked(str(value), rules)) != str(value):
        return hidden
    return value
