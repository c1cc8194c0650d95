"""Inappropriate content by word rules: a coarse net, which a moderation model stands beside. Flags are for a person."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

from chaku.chat.messages import Conversation, Message
from chaku.data.ledger import Decision, Flag
from chaku.data.rules.personal import quote
from chaku.data.rules.table import Action

_EXPLICIT = (
    r"(?:porn\w*|blow ?jobs?|cum ?shots?|masturbat\w+|orgasms?|fellatio|cunnilingus|gang ?bangs?|hentai"
    r"|sex(?:ual)? acts?|having sex|sexual intercourse)"
)
_NUDE = r"(?:nudes?(?! (?:mouse|mice|rats?|colou?rs?|shades?|lips?(?:tick)?|heels?|tones?|mole))|erotica?)"
_SEXUAL = rf"(?:{_EXPLICIT}|{_NUDE})"
# Children of flesh and blood: not the nodes of a tree, the processes of a system or the minor keys of music.
_CHILD = (
    r"(?:(?<!parent )(?<!parent's )(?<!node's )(?<!left )(?<!right )"
    r"child(?:ren)?(?![- ](?:nodes?|process\w*|elements?|class\w*|component\w*|themes?|windows?|support|pages?|tables?"
    r"|care|of (?:a|an|the|each|every|this) (?:\w+ )?(?:node|tree|element|process|parent|class)))"
    r"|(?<!music )(?<!with )minors|toddlers?|preteens?|underage (?:girls?|boys?|teens?|persons?|people)"
    r"|schoolgirls?|schoolboys?|loli(?:con)?s?|(?:[3-9]|1[0-7])[- ]year[- ]olds?)"
)
# Within one sentence; more words may stand between an explicit word and a child than next to a nude picture.
_MINORS = "|".join(
    rf"\b{first}\b[^.!?\n]{{0,{reach}}}?\b{second}\b"
    for adult, reach in ((_EXPLICIT, 80), (_NUDE, 25))
    for first, second in ((_CHILD, adult), (adult, _CHILD))
)
_WORDS: Mapping[str, re.Pattern[str]] = {
    "minors": re.compile(_MINORS, re.I),
    "sexual": re.compile(rf"\b{_SEXUAL}\b", re.I),
    "slur": re.compile(
        r"\b(?:n[i1]gg(?:er|a)s?|fagg?ots?|k[i1]kes?|sp[i1]cs|ch[i1]nks(?! in )|trann(?:y|ies)|wetbacks?"
        r"|(?:a|an?|you|such a|fucking|what a|are|the) retards?(?! (?:the|de|du|in|of)\b))\b",
        re.I,
    ),
    "self_harm": re.compile(
        r"\b(?:kill(?:ing)? my ?self|(?:commit(?:ting)?|attempt(?:ing)?) suicide|i (?:just )?want to die"
        r"|self[- ]harm\w*|cut(?:ting)? my ?self(?! (?:some|a)\b))\b",
        re.I,
    ),
    "weapons": re.compile(
        r"\b(?:how (?:do i|to|can i|would i)|instructions? (?:for|to)|steps to|recipe for|teach me to)\b[^.!?\n]{0,40}?"
        r"\b(?:mak(?:e|ing)|build(?:ing)?|synthesi[sz](?:e|ing)|construct\w*|cook)\b[^.!?\n]{0,40}?"
        r"\b(?:(?<!bath )(?<!chocolate )(?<!seed )bombs?|explosives?|nerve (?:gas|agents?)|sarin|ricin|pipe ?bombs?"
        r"|molotov\w*|(?:gun |pistol |rifle )silencers?|meth(?:amphetamine)?)\b",
        re.I,
    ),
}  # fmt: skip
# A pattern is tried only where one of its stems stands in the text: `in` is 50 times as fast as the pattern.
_SEXUAL_STEMS = (
    "porn", "blow", "cum", "masturbat", "orgasm", "erotic", "nude", "fellatio", "cunnilingus", "gang", "hentai", "sex",
)  # fmt: skip
_STEMS: Mapping[str, tuple[str, ...]] = {
    "minors": _SEXUAL_STEMS,
    "sexual": _SEXUAL_STEMS,
    "slur": ("gger", "gga", "fag", "kike", "k1ke", "spic", "sp1c", "chink", "ch1nk", "trann", "wetback", "retard"),
    "self_harm": ("myself", "my self", "suicide", "want to die", "harm"),
    "weapons": ("bomb", "explosive", "nerve ", "sarin", "ricin", "molotov", "silencer", "meth"),
}


CONTENT_RULES = tuple(_WORDS)
"""The names of the rules, in the order in which they are tried."""


def content_hits(text: str, rules: Iterable[str] = CONTENT_RULES) -> Iterator[tuple[str, list[re.Match[str]]]]:
    """The rules that find something in a text, each with all it finds."""
    lower = text.lower()
    for rule in rules:
        if any(stem in lower for stem in _STEMS[rule]) and (hits := list(_WORDS[rule].finditer(text))):
            yield rule, hits


def _texts(message: Message) -> list[str]:
    return [message.content, *filter(None, (message.reasoning,)), *(call.arguments for call in message.tool_calls)]


def judge_content(conversation: Conversation, actions: Mapping[str, Action]) -> Decision:
    """Apply the word rules; the first that drops decides."""
    flags: list[Flag] = []
    text = "\n".join(piece for message in conversation.messages for piece in _texts(message))
    for rule, hits in content_hits(text, [rule for rule in CONTENT_RULES if actions[rule] != "off"]):
        if actions[rule] == "drop":
            return Decision(conversation.id, None, rule, len(hits), quote(hits[0][0]), tuple(flags))
        flags.append(Flag(rule, len(hits), quote(hits[0][0])))
    return Decision(conversation.id, conversation, flags=tuple(flags))
