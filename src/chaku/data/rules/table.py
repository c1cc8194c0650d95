"""Every rule that can drop, flag or change a conversation: its stage, what it does by default, what it means.

docs/data.md prints this table; a recipe changes an action by name (`data: {rules: {refusal: drop}}`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from chaku.nearest import did_you_mean

Action = Literal["drop", "flag", "redact", "off"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One reason. `actions` are those a recipe may choose; a rule with one action can't be changed."""

    name: str
    stage: str
    default: Action
    meaning: str
    actions: tuple[Action, ...] = ("drop", "flag", "off")


_ALWAYS: tuple[Action, ...] = ("drop",)
_SEEN: tuple[Action, ...] = ("flag",)
_PII: tuple[Action, ...] = ("redact", "drop", "flag", "off")

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule("bad_line", "import", "drop", "the record is not JSON, or its text is not UTF-8", _ALWAYS),
        Rule("unknown_shape", "import", "drop", "JSON, but of no conversation format that we know", _ALWAYS),
        Rule("bad_message", "import", "drop", "a message has an unknown role, or content that is not text", _ALWAYS),
        Rule("not_best_path", "import", "flag", "branches of a message tree that were not taken", _SEEN),
        Rule("cleaned", "clean", "flag", "HTML became Markdown, or page furniture went", _SEEN),
        Rule("error_answer", "clean", "drop", "an answer is the chat page's own error text"),
        Rule("formula_lost", "clean", "drop", "an answer's formula has lost its TeX: fractions and powers fall flat"),
        Rule("page_html", "clean", "flag", "a chat page's HTML between other text, which could not be converted"),
        Rule("no_assistant", "normalise", "drop", "nobody answers; kept as a prompt for evaluation", _ALWAYS),
        Rule("no_user", "normalise", "drop", "no user turn comes before an answer", _ALWAYS),
        Rule("bad_tool_order", "normalise", "drop", "a tool result that no call asked for", _ALWAYS),
        Rule("leading_assistant", "normalise", "flag", "answers before the first user turn were taken away", _SEEN),
        Rule("trailing_user", "normalise", "flag", "user turns after the last answer were taken away", _SEEN),
        Rule("merged_turns", "normalise", "flag", "turns of one speaker in a row were joined", _SEEN),
        Rule("empty_turn", "normalise", "flag", "an empty turn; it and what follows were taken away", _SEEN),
        Rule("late_system", "normalise", "flag", "system messages after the start were taken away", _SEEN),
        Rule("language", "language", "drop", "not one of the languages asked for (unknown is kept)"),
        Rule("too_short", "quality", "drop", "under 16 characters altogether"),
        Rule("repetition", "quality", "drop", "an answer repeats itself: lines, or one phrase over and over"),
        Rule("identity_claim", "quality", "drop", "an answer says that it is another maker's model: I am ..."),
        Rule("garbled", "quality", "drop", "broken encoding: replacement or control characters in an answer"),
        Rule("refusal", "quality", "flag", "an answer refuses"),
        Rule("truncated", "quality", "flag", "the last answer stops in mid-sentence or inside a code block"),
        Rule("list_numbering", "quality", "flag", "an ordered list that restarts at 1 on every item"),
        Rule("short_answers", "quality", "flag", "answers of under 3 words throughout"),
        Rule("minors", "content", "drop", "sexual words near words for children, in one sentence"),
        Rule("sexual", "content", "flag", "explicit sexual words"),
        Rule("slur", "content", "flag", "words that demean a group of people"),
        Rule("self_harm", "content", "flag", "suicide or self-injury"),
        Rule("weapons", "content", "flag", "asks how to make explosives, poisons or weapons"),
        Rule("secret", "personal", "redact", "API keys, tokens, private keys, by their published forms", _PII),
        Rule("credit_card", "personal", "redact", "a card number of its network's length, Luhn sum right", _PII),
        Rule("iban", "personal", "redact", "an IBAN of its country's length, mod 97 right", _PII),
        Rule("ssn", "personal", "redact", "a United States social security number of a valid range", _PII),
        Rule("email", "personal", "flag", "an e-mail address (example domains excepted)", _PII),
        Rule("phone", "personal", "flag", "a telephone number", _PII),
        Rule("ip_address", "personal", "flag", "a public IP address", _PII),
        Rule("moderation", "moderation", "drop", "the configured moderation model flags it"),
        Rule("contaminated", "decontaminate", "drop", "a user turn holds an evaluation question"),
        Rule("bad_pair", "pairs", "drop", "two answers that are the same after cleaning", _ALWAYS),
        Rule("exact_duplicate", "dedup", "drop", "the same turns as an earlier conversation, spaces and case aside"),
        Rule("near_duplicate", "dedup", "drop", "MinHash similarity with an earlier one above the threshold"),
        Rule(
            "no_place",
            "split",
            "drop",
            "the template has no place for what is in it (tools, a system prompt ...)",
            _ALWAYS,
        ),
        Rule("round_too_long", "split", "drop", "one round longer than the context, `overlong: reject`", _ALWAYS),
        Rule("round_cut", "split", "flag", "one round longer than the context: its row ends at the context", _SEEN),
        Rule("pair_too_long", "split", "drop", "two answers longer than context or row; pairs are never cut", _ALWAYS),
        Rule("nothing_to_train", "tokenise", "drop", "no token of it carries loss", _ALWAYS),
    )
}

PII_RULES = tuple(rule.name for rule in RULES.values() if "redact" in rule.actions)


def actions(chosen: Mapping[str, str]) -> dict[str, Action]:
    """The action of every rule: the defaults, changed by `chosen`. Raises ValueError naming the nearest rule."""
    result: dict[str, Action] = {name: rule.default for name, rule in RULES.items()}
    for name, action in chosen.items():
        if name not in RULES:
            raise ValueError(f"no rule {name!r}, {did_you_mean(name, RULES, 'there are ' + ', '.join(RULES))}")
        rule = RULES[name]
        if action not in rule.actions:
            raise ValueError(f"rule {name!r} can't {action!r}, it takes {' or '.join(rule.actions)}")
        result[name] = next(known for known in rule.actions if known == action)
    return result
