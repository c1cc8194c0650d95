"""What cleaning found in each turn: the text after it, and the rules about what could not be saved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from chaku.chat.messages import Conversation, Message, Role
from chaku.data.html.clean import clean_text
from chaku.data.ledger import Decision, Flag
from chaku.data.rules.personal import quote
from chaku.data.rules.table import Action

_RULES: Mapping[str, tuple[str, bool]] = {
    "error_text": ("error_answer", True),
    "formula_lost": ("formula_lost", True),
    "page_html_in_text": ("page_html", False),
}
"""By what cleaning notes: the rule, and whether it is about answers alone."""


def judge_cleaned(conversation: Conversation, actions: Mapping[str, Action]) -> Decision:
    """Turn the HTML in each turn to Markdown; the first rule that drops decides."""
    flags: list[Flag] = []
    messages: list[Message] = []
    for message in conversation.messages:
        if message.role is Role.TOOL or not message.content:
            messages.append(message)
            continue
        is_answer = message.role is Role.ASSISTANT
        cleaned = clean_text(message.content, is_answer=is_answer)
        for note, (rule, only_answers) in _RULES.items():
            if note not in cleaned.notes or actions[rule] == "off" or (only_answers and not is_answer):
                continue
            if actions[rule] == "drop":
                return Decision(conversation.id, None, rule, note=quote(cleaned.text), flags=tuple(flags))
            flags.append(Flag(rule, None, quote(cleaned.text)))
        if cleaned.text != message.content:
            done = ", ".join(cleaned.notes) or cleaned.kind
            flags.append(Flag("cleaned", len(message.content) - len(cleaned.text), done))
        messages.append(replace(message, content=cleaned.text))
    return Decision(conversation.id, replace(conversation, messages=tuple(messages)), flags=_gathered(flags))


def _gathered(flags: Sequence[Flag]) -> tuple[Flag, ...]:
    """One `cleaned` flag a conversation: characters that went, and all that was done."""
    cleaned = [flag for flag in flags if flag.rule == "cleaned"]
    if len(cleaned) < 2:
        return tuple(flags)
    notes = ", ".join(dict.fromkeys(note for flag in cleaned for note in (flag.note or "").split(", ") if note))
    total = Flag("cleaned", sum(flag.score or 0 for flag in cleaned), notes)
    return (total, *(flag for flag in flags if flag.rule != "cleaned"))
