"""Named quality rules over the text of a conversation. Each is a function: texts in, a finding or None out."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Callable, Mapping

from chaku.chat.messages import Conversation, Role
from chaku.data.ledger import Decision, Flag
from chaku.data.rules.personal import masked, quote
from chaku.data.rules.table import Action

Finding = tuple[float, str]
"""A score in the rule's own unit, and a quotation."""

_CODE = re.compile(r"```(?s:.*?)(?:```|\Z)", re.DOTALL)
_MIN_CHARS = 16
_LOOP_LINES, _LOOP_WORDS = 12, 60
_LOOP_SHARE = 0.5
_LONG_WORD = 60
_NUMBERED = re.compile(r"^\s*(?:[-*+]\s+)?\d+[.):]\s*")
_RUN = re.compile(r"(\w)\1{59,}|(\w{2,8}?)\2{29,}")
_GARBLED = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_GARBLED_CHARS = 3
_CANNOT = r"(?:can(?:'|’)?t|cannot|am unable|am not able|won(?:'|’)?t)"
_REFUSAL = re.compile(
    rf"\s*(?:i(?:'|’)?m (?:very |really |so )?sorry,? (?:but )?(?:as an ai|i {_CANNOT})"
    rf"|(?:sorry|apologies|unfortunately),? (?:but )?i {_CANNOT}"
    rf"|i {_CANNOT}(?: to)? (?:help|assist|fulfil|comply|provide|engage|create|write|generate|do that)"
    rf"|as an ai(?: language)? model,? i (?:{_CANNOT}|do not|don(?:'|’)?t))",
    re.IGNORECASE,
)
# Who speaks is "I", and what "I" am is another maker's model: a sentence about such a model claims nothing.
_MAKER = r"(?:open ?ai|google|anthropic|microsoft|meta(?: ai)?|mistral(?: ai)?|deepseek|alibaba)"
_MADE_BY = r"(?:developed|created|trained|made|built|designed) by"
_MODEL = r"(?:ai|artificial intelligence|language model|llm|chat ?bot|virtual assistant|ai assistant|model)"
_I_AM = r"\b(?:i am|i(?:'|’)m|my name is|you(?:'|’)re (?:talking|chatting) (?:to|with))"
_ONLY_A_MODEL = r"(?:chat ?gpt(?:-?[0-9.]+)?|gpt-?[0-9][\w.]*|bing chat|deepseek(?:-\w+)?)"
_ALSO_A_NAME = r"(?:claude|bard|gemini|copilot)"
_IDENTITY = re.compile(
    rf"{_I_AM} (?:called |actually |just )?{_ONLY_A_MODEL}\b(?!['’]s\b)"
    rf"|{_I_AM} (?:called |actually )?{_ALSO_A_NAME}\b[^.!?\n]{{0,40}}?\b(?:{_MODEL}|{_MAKER})\b"
    rf"|{_I_AM} (?:an?|the) [^.!?\n]{{0,60}}?\b{_MODEL}\b[^.!?\n]{{0,30}}?\b{_MADE_BY} {_MAKER}\b"
    rf"|\bas an? [^.!?\n]{{0,40}}?\b{_MODEL}\b[^.!?\n]{{0,30}}?\b{_MADE_BY} {_MAKER}\b[^.!?\n]{{0,20}}?\bi\b"
    rf"|\bi (?:was|am|(?:have|(?:'|’)ve) been) (?:developed|created|made|built|designed) by {_MAKER}\b"
    rf"|\bi was trained by {_MAKER}\b(?! (?:as|to|in)\b)",
    re.IGNORECASE,
)
_NAME_ALONE = re.compile(rf"\s*(?:hi|hello|hey)?[,.! ]*{_I_AM} {_ALSO_A_NAME}(?:[.!,]|\s*$)", re.IGNORECASE)
_ASKED_WHO = re.compile(r"\b(?:who|what) (?:are|r) (?:you|u)\b|\byour name\b|\bintroduce yourself\b", re.IGNORECASE)
_QUOTED = re.compile(
    r"```(?s:.*?)(?:```|\Z)|`[^`\n]*`|\"[^\"\n]{0,400}\"|“[^”\n]{0,400}”|«[^»\n]{0,400}»|^[ \t]*>.*$", re.MULTILINE
)
_MAKERS = (
    "gpt", "claude", "bard", "gemini", "copilot", "bing", "openai", "open ai", "google", "anthropic", "microsoft",
    "meta", "mistral", "deepseek", "alibaba",
)  # fmt: skip
_ENDS_WELL = re.compile(r"[.!?…:;)\]}>\"'”’»*_`|~$%0-9。！？」』）\u0964\u061f\U0001F000-\U0001FAFF\u2600-\u27bf]\s*\Z")
_LIST_ITEM = re.compile(r"^(\d+)[.)] ", re.MULTILINE)


def _too_short(conversation: Conversation, answers: list[str]) -> Finding | None:
    size = sum(
        len(message.content.strip()) + sum(len(c.arguments) for c in message.tool_calls)
        for message in conversation.messages
    )
    return (size, f"{size} characters") if size < _MIN_CHARS else None


def _repetition(conversation: Conversation, answers: list[str]) -> Finding | None:
    for answer in answers:
        for word in answer.split():
            if len(word) >= _LONG_WORD and (run := _RUN.search(word)):
                return 1.0, run[0]
        text = _CODE.sub("\n", answer)
        lines = [line for raw in text.splitlines() if len(line := _NUMBERED.sub("", raw).strip()) > 3]
        lines = [line for line in lines if set(line) - set("|-=+_* :\t")]
        if len(lines) >= _LOOP_LINES:
            size = sum(map(len, lines))
            again = size - sum(map(len, set(lines)))
            if again > _LOOP_SHARE * size:
                return again / size, Counter(lines).most_common(1)[0][0]
        # Within a line: lines that begin alike and differ after it (SQL inserts, log files) are no loop.
        for line in lines:
            if len(line) >= 2 * _LOOP_WORDS and (found := _phrase_loop(line.split())):
                return found
    return None


def _phrase_loop(words: list[str]) -> Finding | None:
    if len(words) < _LOOP_WORDS or not _may_loop(words):
        return None
    phrases = Counter(zip(words, words[1:], words[2:], words[3:], words[4:], strict=False))
    phrase, times = phrases.most_common(1)[0]
    share = 5 * times / len(words)
    return (min(share, 1.0), " ".join(phrase)) if times > 4 and share > _LOOP_SHARE else None


def _may_loop(words: list[str]) -> bool:
    """Whether any of 64 phrases taken at equal distances comes three times: a phrase that fills half a text does."""
    step = max(len(words) // 64, 1)
    taken = Counter(tuple(words[start : start + 5]) for start in range(0, len(words) - 4, step))
    return max(taken.values()) >= 3


def _identity_claim(conversation: Conversation, answers: list[str]) -> Finding | None:
    hits: list[str] = []
    question = ""
    for message in conversation.messages:
        if message.role is Role.USER:
            question = message.content
        if message.role is not Role.ASSISTANT or not any(maker in message.content.lower() for maker in _MAKERS):
            continue
        spoken = _QUOTED.sub('""', message.content)
        hit = _IDENTITY.search(spoken) or (_ASKED_WHO.search(question) and _NAME_ALONE.match(spoken))
        if hit:
            hits.append(hit[0].strip())
    return (len(hits), hits[0]) if hits else None


def _refusal(conversation: Conversation, answers: list[str]) -> Finding | None:
    hits = [answer for answer in answers if _REFUSAL.match(answer)]
    return (len(hits) / len(answers), hits[0]) if hits else None


def _garbled(conversation: Conversation, answers: list[str]) -> Finding | None:
    count = sum(len(_GARBLED.findall(answer)) for answer in answers)
    return (count, f"{count} such characters") if count >= _GARBLED_CHARS else None


def _truncated(conversation: Conversation, answers: list[str]) -> Finding | None:
    last = answers[-1].rstrip() if answers else ""
    if not last or conversation.messages[-1].tool_calls:
        return None
    if last.count("```") % 2:
        return 1.0, "a code block that does not end"
    if len(last) > 400 and not _ENDS_WELL.search(last) and not _LIST_ITEM.match(last.rsplit("\n", 1)[-1]):
        return 0.5, "…" + masked(last[-2000:])[-60:]
    return None


def _list_numbering(conversation: Conversation, answers: list[str]) -> Finding | None:
    for answer in answers:
        if "\n1" not in answer:
            continue
        numbers = [int(number) for number in _LIST_ITEM.findall(_CODE.sub("", answer))]
        restarts = sum(a == b == 1 for a, b in itertools.pairwise(numbers))
        if restarts:
            return restarts, f"{restarts + 1} items numbered 1"
    return None


def _short_answers(conversation: Conversation, answers: list[str]) -> Finding | None:
    longest = max((len(answer.split()) for answer in answers), default=0)
    if longest >= 3 or any(message.tool_calls for message in conversation.messages):
        return None
    if any(len(answer) > 12 for answer in answers):  # scripts without spaces
        return None
    return longest, answers[0] if answers else ""


CHECKS: Mapping[str, Callable[[Conversation, list[str]], Finding | None]] = {
    "too_short": _too_short,
    "repetition": _repetition,
    "identity_claim": _identity_claim,
    "garbled": _garbled,
    "refusal": _refusal,
    "truncated": _truncated,
    "list_numbering": _list_numbering,
    "short_answers": _short_answers,
}


def judge_quality(conversation: Conversation, actions: Mapping[str, Action]) -> Decision:
    """Apply the quality rules in the table's order; the first that drops decides."""
    answers = [message.content for message in conversation.messages if message.role is Role.ASSISTANT]
    flags: list[Flag] = []
    for name, check in CHECKS.items():
        if actions[name] == "off" or (finding := check(conversation, answers)) is None:
            continue
        score, quotation = finding
        if actions[name] == "drop":
            return Decision(conversation.id, None, name, score, quote(quotation), flags=tuple(flags))
        flags.append(Flag(name, score, quote(quotation)))
    return Decision(conversation.id, conversation, flags=tuple(flags))
