"""Inappropriate content by word rules (a coarse net: a moderation model plugs in beside it), and personal data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson

from chaku.chat.messages import Conversation, Message, ToolCall
from chaku.data.ledger import Decision, Flag
from chaku.data.rules.personal import Finding, find, redact
from chaku.data.rules.table import PII_RULES, Action

_SEXUAL = (
    r"(?:porn\w*|blow ?jobs?|cum ?shots?|masturbat\w+|orgasms?|erotica?|nudes?"
    r"|fellatio|cunnilingus|gang ?bangs?|hentai)"
)
_CHILD = (
    r"(?:child(?:ren)?|minors?|toddlers?|preteens?|underage|schoolgirls?|schoolboys?|loli(?:con)?s?"
    r"|(?:[3-9]|1[0-7])[- ]year[- ]olds?)"
)
_WORDS: Mapping[str, re.Pattern[str]] = {
    "minors": re.compile(rf"\b{_CHILD}\b.{{0,80}}?\b{_SEXUAL}\b|\b{_SEXUAL}\b.{{0,80}}?\b{_CHILD}\b", re.I | re.S),
    "sexual": re.compile(rf"\b{_SEXUAL}\b", re.I),
    "slur": re.compile(
        r"\b(?:n[i1]gg(?:er|a)s?|fagg?ots?|k[i1]kes?|sp[i1]cs|ch[i1]nks|trann(?:y|ies)|wetbacks?|retards?)\b", re.I
    ),
    "self_harm": re.compile(
        r"\b(?:kill(?:ing)? my ?self|(?:commit(?:ting)?|attempt(?:ing)?) suicide|want to die"
        r"|self[- ]harm\w*|cut(?:ting)? my ?self)\b",
        re.I,
    ),
    "weapons": re.compile(
        r"\b(?:how (?:do i|to|can i|would i)|instructions? (?:for|to)|steps to|recipe for|teach me to)\b.{0,40}?"
        r"\b(?:mak(?:e|ing)|build(?:ing)?|synthesi[sz](?:e|ing)|construct\w*|cook)\b.{0,40}?"
        r"\b(?:bombs?|explosives?|nerve (?:gas|agents?)|sarin|ricin|pipe ?bombs?|molotov\w*|silencers?"
        r"|meth(?:amphetamine)?)\b",
        re.I | re.S,
    ),
}  # fmt: skip
# A pattern is tried only where one of its stems stands in the text: `in` is 50 times as fast as the pattern.
_SEXUAL_STEMS = (
    "porn", "blow", "cum", "masturbat", "orgasm", "erotic", "nude", "fellatio", "cunnilingus", "gang", "hentai",
)  # fmt: skip
_STEMS: Mapping[str, tuple[str, ...]] = {
    "minors": _SEXUAL_STEMS,
    "sexual": _SEXUAL_STEMS,
    "slur": ("gger", "gga", "fag", "kike", "k1ke", "spic", "sp1c", "chink", "ch1nk", "trann", "wetback", "retard"),
    "self_harm": ("myself", "my self", "suicide", "want to die", "harm"),
    "weapons": ("bomb", "explosive", "nerve ", "sarin", "ricin", "molotov", "silencer", "meth"),
}


def _texts(message: Message) -> list[str]:
    return [message.content, *filter(None, (message.reasoning,)), *(call.arguments for call in message.tool_calls)]


def judge_content(conversation: Conversation, actions: Mapping[str, Action]) -> Decision:
    """Apply the word rules, then the rules on personal data; redacted text comes back in the conversation."""
    flags: list[Flag] = []
    text = "\n".join(piece for message in conversation.messages for piece in _texts(message))
    lower = text.lower()
    for rule, pattern in _WORDS.items():
        if actions[rule] == "off" or not any(stem in lower for stem in _STEMS[rule]):
            continue
        hits = [hit[0] for hit in pattern.finditer(text)]
        if hits and actions[rule] == "drop":
            return Decision(conversation.id, None, rule, len(hits), hits[0][:80], tuple(flags))
        if hits:
            flags.append(Flag(rule, len(hits), hits[0][:80]))
    return _judge_personal(conversation, text, actions, flags)


def _judge_personal(
    conversation: Conversation, text: str, actions: Mapping[str, Action], flags: list[Flag]
) -> Decision:
    findings = [finding for finding in find(text) if actions[finding.rule] != "off"]
    counts = Counter(finding.rule for finding in findings)
    first = {finding.rule: text[finding.start : finding.end] for finding in reversed(findings)}
    for rule in PII_RULES:
        if rule not in counts:
            continue
        shown = _masked(first[rule])
        if actions[rule] == "drop":
            return Decision(conversation.id, None, rule, counts[rule], shown, tuple(flags))
        flags.append(Flag(rule, counts[rule], f"{'redacted ' if actions[rule] == 'redact' else ''}{shown}"))
    if any(actions[rule] == "redact" for rule in counts):
        conversation = replace(
            conversation, messages=tuple(_redact_message(message, actions) for message in conversation.messages)
        )
    return Decision(conversation.id, conversation, flags=tuple(flags))


def _masked(text: str) -> str:
    """Enough to recognise a finding by, too little to use it: the ledger must not become a list of secrets."""
    return f"{text[:3]}… ({len(text)} characters)"


def _wanted(text: str, actions: Mapping[str, Action]) -> list[Finding]:
    return [finding for finding in find(text) if actions[finding.rule] == "redact"]


def _redact_text(text: str, actions: Mapping[str, Action]) -> str:
    return redact(text, _wanted(text, actions))


def _redact_message(message: Message, actions: Mapping[str, Action]) -> Message:
    calls = tuple(ToolCall(call.id, call.name, _redact_json(call.arguments, actions)) for call in message.tool_calls)
    reasoning = None if message.reasoning is None else _redact_text(message.reasoning, actions)
    return replace(message, content=_redact_text(message.content, actions), reasoning=reasoning, tool_calls=calls)


def _redact_json(text: str, actions: Mapping[str, Action]) -> str:
    """Redact inside a call's arguments so that they stay JSON."""
    if not _wanted(text, actions):
        return text
    try:
        return orjson.dumps(_redact_value(orjson.loads(text), actions)).decode()
    except orjson.JSONDecodeError:
        return _redact_text(text, actions)


def _redact_value(value: Any, actions: Mapping[str, Action]) -> Any:
    if isinstance(value, dict):
        return {key: _redact_value(item, actions) for key, item in value.items()}
    if isinstance(value, list):
        return [_redact_value(item, actions) for item in value]
    if isinstance(value, str):
        return _redact_text(value, actions)
    if isinstance(value, int) and _wanted(str(value), actions):
        return _redact_text(str(value), actions)
    return value
