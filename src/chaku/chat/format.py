"""What a chat template is made of: the strings around every role, and what a format has a place for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from chaku.chat.segments import BOS


@dataclass(frozen=True, slots=True)
class Wrap:
    """What stands before and after something."""

    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Tools:
    """Where function specs, calls and results go."""

    specs: Wrap | None
    """Around the specs, one JSON object each. None: refused for `no_specs`."""
    result: Wrap
    """Around one result."""
    no_specs: str = ""
    specs_in: Literal["system", "user"] = "system"
    """Behind the system prompt, or before the first user message."""
    spec: Wrap = field(default_factory=lambda: Wrap("", ""))
    spec_indent: int | None = None
    calls: Wrap = field(default_factory=lambda: Wrap("", ""))
    """Around all calls of one message."""
    call: Wrap = field(default_factory=lambda: Wrap("", ""))
    call_separator: str = "\n"
    arguments_key: str = "arguments"
    call_has_id: bool = False
    calls_alone: bool = False
    """No text beside a call."""
    single_call: bool = False
    """One call for each message."""
    results: Wrap = field(default_factory=lambda: Wrap("", ""))
    """Around consecutive results."""
    result_form: Literal["text", "json", "object"] = "text"
    """As it is, as a JSON string, or as an object with content and call_id."""


@dataclass(frozen=True, slots=True)
class Format:
    """One chat format. All strings are exact; BOS and EOS stand for the tokenizer's tokens.

    A conversation is `start`, the system prompt, then the messages, each in its wrap. An assistant message is
    `assistant` (which is the generation prompt), then what carries loss: `lead`, the answer and `end`; then `after`.
    """

    name: str
    user: Wrap
    assistant: str
    end: str
    after: str = ""
    lead: str = ""
    """Between generation prompt and answer, learned with the answer."""
    start: str = BOS
    system: Wrap | None = None
    """The system prompt as a turn of its own. None: it goes `system_in_user`."""
    system_in_user: Wrap | None = None
    """The system prompt inside the first user turn, before the text."""
    default_system: str | None = None
    system_anywhere: bool = False
    """Further system messages may follow later."""
    trims: bool = False
    """Contents lose the white space around them."""
    alternates: bool = False
    """User and assistant take turns, the user first; anything else is refused."""
    reasoning: Wrap | None = None
    """Around what the assistant thinks, before its answer. It stays in the history."""
    tools: Tools | None = None
    stop: tuple[str, ...] = ()
    """Stop strings, where the end of an answer is not a special token."""
    tokens: tuple[str, ...] = ()
    """Marks that must be special tokens: as plain text, anybody could write them."""
    strips_answer_end: bool = False
    """Answers lose the spaces at their end."""
