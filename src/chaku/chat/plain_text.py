"""Text stays text: what to do when a message spells a special token (`<|im_end|>`), which a tokenizer would read as the
token itself and so close the turn. Pure functions over message lists and rendered prompts; no tokenizer here.

Two ways out. `shield` puts a sentinel for each spelling before the template is rendered; `split` then finds the special
tokens that the template wrote and puts the spellings back into the plain runs. `break_apart` is for engines that only
take messages: a zero-width space follows the first character of each spelling.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

ZERO_WIDTH_SPACE = "\u200b"

_NOT_TEXT = frozenset({"role", "type", "url"})
"""Keys whose strings are names or addresses, never text that a template writes into a prompt."""


@dataclass(frozen=True)
class Special:
    """A special token that the template itself wrote."""

    spelling: str


def compile_specials(spellings: Iterable[str]) -> re.Pattern[str] | None:
    """One expression that finds any of the spellings, the longest first; None where there is none."""
    ordered = sorted({spelling for spelling in spellings if spelling}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, ordered))) if ordered else None


BROKEN_APART = "special token spellings in the messages were broken apart with U+200B"
"""The note for whoever asked, where `break_apart` changed a message."""


def spells_special(value: Any, specials: re.Pattern[str]) -> bool:
    """Whether any text inside `value` (messages, the tools' descriptions, or a part of them) spells a special token."""
    if isinstance(value, str):
        return specials.search(value) is not None
    if isinstance(value, dict):
        return any(
            specials.search(key) is not None or (not _is_name(key, item) and spells_special(item, specials))
            for key, item in value.items()
        )
    return isinstance(value, list) and any(spells_special(item, specials) for item in value)


def shield(messages: Sequence[Any], specials: re.Pattern[str]) -> tuple[list[Any], dict[str, str]]:
    """A copy of the messages with each spelling replaced by a random word, and the words with what they stand for."""
    tag = secrets.token_hex(8)
    spellings: dict[str, str] = {}

    def sentinel(match: re.Match[str]) -> str:
        word = f"q{tag}n{len(spellings):x}z"
        spellings[word] = match.group()
        return word

    return [_rewrite(message, specials, sentinel) for message in messages], spellings


def split(prompt: str, specials: re.Pattern[str], spellings: dict[str, str]) -> list[Special | str]:
    """A rendered prompt as special tokens and plain runs in order, the shielded spellings back in the runs.

    Joining the pieces gives the prompt that the unshielded messages would have rendered to.
    """
    restore = compile_specials(spellings)
    pieces: list[Special | str] = []
    position = 0
    for match in [*specials.finditer(prompt), None]:
        run = prompt[position : match.start() if match else len(prompt)]
        if run:
            pieces.append(restore.sub(lambda found: spellings[found.group()], run) if restore else run)
        if match:
            pieces.append(Special(match.group()))
            position = match.end()
    return pieces


def break_apart(messages: Sequence[Any], specials: re.Pattern[str]) -> list[Any]:
    """A copy of the messages in which a zero-width space follows the first character of each spelling."""

    return [_rewrite(message, specials, broken) for message in messages]


def broken(match: re.Match[str]) -> str:
    """A spelling with a zero-width space behind its first character."""
    return match.group()[0] + ZERO_WIDTH_SPACE + match.group()[1:]


def _is_name(key: str, item: Any) -> bool:
    return key in _NOT_TEXT and isinstance(item, str)


def _rewrite(value: Any, specials: re.Pattern[str], replace: Callable[[re.Match[str]], str]) -> Any:
    if isinstance(value, str):
        return specials.sub(replace, value)
    if isinstance(value, dict):
        return {
            specials.sub(replace, key): item if _is_name(key, item) else _rewrite(item, specials, replace)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_rewrite(item, specials, replace) for item in value]
    return value
