"""Jinja chat templates: the sandbox they run in, and a foreign template as a layout once it is proven to be one.

A template is text in and text out, so which parts of its output are conversation and which are its own is found by
rendering with placeholders in place of the contents, and every rendering is checked against the real one.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Callable, Collection, Sequence
from typing import Any, NoReturn

from chaku.chat.export import template_variables
from chaku.chat.messages import Conversation, Message, Role
from chaku.chat.segments import Segment
from chaku.chat.tokenizer import Tokenizer
from chaku.errors import InvalidRequest, ModelError
from chaku.packages import install_command

# Private-use characters around a number stand for a content while the template is taken apart.
_OPEN, _CLOSE = "\ue010", "\ue011"
_PLACEHOLDER = re.compile(f"{_OPEN}(\\d+){_CLOSE}")

Render = Callable[..., str]


def compile_jinja(source: str) -> Render:
    """The source as a function of its variables, in the sandbox and with the functions transformers gives templates.

    `strftime_now` is left out: a prompt that depends on the day can't be what was trained. Raises ModelError for
    source that is not Jinja; the function raises InvalidRequest for what the template refuses or trips over.
    """
    try:
        from jinja2 import TemplateError
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise ModelError("a model's own chat template needs jinja2", fix=install_command("data")) from None

    def raise_exception(message: str) -> NoReturn:
        raise TemplateError(message)

    def tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals["raise_exception"] = raise_exception
    try:
        template = environment.from_string(source)
    except TemplateError as error:
        raise ModelError(f"the chat template is not valid Jinja: {error}") from None

    def render(**variables: Any) -> str:
        try:
            return template.render(**variables)
        except (TemplateError, TypeError, ValueError, LookupError, AttributeError) as error:
            raise InvalidRequest(f"the chat template refuses this conversation: {error}", param="messages") from None

    return render


class JinjaTemplate:
    """A tokenizer's own chat template, proven prefix-stable by probes.

    Proven means: messages render to a prefix of the same messages with one more; the generation prompt begins every
    assistant turn; contents go in once, in order, as they are, without the white space around them (`trims`), or
    answers without the spaces at their end (`strips_answer_end`); every answer ends with a special token. Raises
    ModelError with the reason where that is not so.
    Tool calls, results and reasoning are refused: what a foreign template does with them can't be told from outside.
    """

    name = "own"
    stop: tuple[str, ...] = ()

    def __init__(self, source: str, *, bos: str, eos: str, specials: Collection[str]) -> None:
        """`bos` and `eos` are what the template sees as bos_token and eos_token; `specials` are all special tokens."""
        self.source = source
        self._tokens = (bos, eos)
        self._render = compile_jinja(source)
        spellings = sorted({*specials, eos} - {""}, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, spellings)))
        self._skeleton = functools.lru_cache(maxsize=1024)(self._find_skeleton)
        self.hash = hashlib.sha256(source.encode()).hexdigest()
        self.end = ""
        """What ends an answer, up to its special token."""
        self.trims = False
        self.strips_answer_end = False
        """Contents lose the white space around them."""
        self.default_system: str | None = None
        """What the template writes before the first message of a conversation without a system prompt."""
        self._prove()

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> JinjaTemplate:
        """The tokenizer's own template. Raises ModelError if it has none, or one that can't be proven."""
        if tokenizer.chat_template is None:
            raise ModelError(f"{tokenizer.name} has no chat template of its own", fix="choose a built-in template")
        return cls(tokenizer.chat_template, bos=tokenizer.bos or "", eos=tokenizer.eos, specials=tokenizer.special_ids)

    def lay_out(
        self, conversation: Conversation, *, bos: str, eos: str, generation_prompt: bool = False
    ) -> Sequence[Segment]:
        """The conversation as segments, with the tokens it was proven for.

        Raises InvalidRequest for what the template refuses or was not proven for.
        """
        for message in conversation.messages:
            if message.parts or message.tool_calls or message.reasoning or message.role is Role.TOOL:
                raise InvalidRequest(
                    "chaku uses a model's own template for text only, not for tool calls, results, reasoning or images",
                    fix="choose a built-in template",
                    param="messages",
                )
        if conversation.tools:
            raise InvalidRequest(
                "chaku passes no functions to a model's own template", fix="choose a built-in template", param="tools"
            )
        contents = [self._written(message) for message in conversation.messages]
        roles = tuple(message.role for message in conversation.messages)
        segments = [
            Segment(contents[int(segment.text)], True, segment.turn) if segment.is_content else segment
            for segment in self._skeleton(roles, generation_prompt)
        ]
        segments = [segment for segment in segments if segment.text]
        if "".join(segment.text for segment in segments) != self._text(conversation, generation_prompt):
            raise InvalidRequest("the model's own template changes the text of this conversation", param="messages")
        return segments

    def _text(self, conversation: Conversation, generation_prompt: bool) -> str:
        bos, eos = self._tokens
        variables = template_variables(conversation)
        return self._render(**variables, bos_token=bos, eos_token=eos, add_generation_prompt=generation_prompt)

    def _placeholders(self, roles: Sequence[Role], generation_prompt: bool = False) -> str:
        messages = tuple(Message(role, f"{_OPEN}{index}{_CLOSE}") for index, role in enumerate(roles))
        return self._text(Conversation("", messages), generation_prompt)

    def _find_skeleton(self, roles: tuple[Role, ...], generation_prompt: bool) -> tuple[Segment, ...]:
        """Segments whose contents are the message's number. Raises InvalidRequest where the proof does not hold."""
        text = self._placeholders(roles, generation_prompt)
        found = [int(number) for number in _PLACEHOLDER.findall(text)]
        if found != list(range(len(roles))):
            raise self._unproven(f"{len(roles)} messages appear in it as {found}")
        segments: list[Segment] = []
        position = 0
        for index, role in enumerate(roles):
            placeholder = f"{_OPEN}{index}{_CLOSE}"
            start = text.index(placeholder)
            end = start + len(placeholder)
            if role is not Role.SYSTEM and not text.startswith(self._placeholders(roles[: index + 1])):
                raise self._unproven(f"{index + 1} messages are not a prefix of {len(roles)}")
            if role is Role.ASSISTANT:
                answer_start = len(self._prompt_before(text, position, start, roles[:index]))
                answer_end = self._answer_end(text, end)
                segments += [
                    Segment(text[position:answer_start], False),
                    Segment(text[answer_start:start], False, index),
                    Segment(str(index), True, index),
                    Segment(text[end:answer_end], False, index),
                ]
                position = answer_end
            else:
                segments += [Segment(text[position:start], False), Segment(str(index), True)]
                position = end
        segments.append(Segment(text[position:], False))
        return tuple(segment for segment in segments if segment.text)

    def _prompt_before(self, text: str, position: int, start: int, roles: tuple[Role, ...]) -> str:
        """The generation prompt that leads to the answer at `start`; only white space may stand between them."""
        prompt = self._placeholders(roles, True)
        if not text.startswith(prompt) or len(prompt) < position:
            raise self._unproven("the generation prompt does not begin the assistant's turn")
        if text[len(prompt) : start].strip():
            raise self._unproven("it puts text between the generation prompt and the answer")
        return prompt

    def _answer_end(self, text: str, end: int) -> int:
        following = text.find(_OPEN, end)
        special = self._special.search(text, end, following if following >= 0 else len(text))
        if special is None:
            raise self._unproven("an answer does not end with a special token")
        return special.end()

    def _unproven(self, reason: str) -> InvalidRequest:
        return InvalidRequest(f"the model's own template can't be trained on: {reason}", fix="choose a built-in one")

    def _prove(self) -> None:
        turns = (Role.USER, Role.ASSISTANT) * 3
        try:
            for length in range(1, len(turns) + 1):
                self._skeleton(turns[:length], turns[length - 1] is Role.USER)
            self.trims = self._find_trims()
            self.strips_answer_end = not self.trims and self._find_strips_answer_end()
            self.end = [segment.text for segment in self._skeleton(turns[:2], False) if segment.turn is not None][-1]
        except InvalidRequest as error:
            raise ModelError(error.message, fix="choose a built-in template") from None
        first, second = _PLACEHOLDER.split(self._placeholders(turns[:3]))[0:6:4]
        num_shared = next(
            (at for at, (one, other) in enumerate(zip(first[::-1], second[::-1], strict=False)) if one != other),
            min(len(first), len(second)),
        )
        before = first[: len(first) - num_shared].removeprefix(self._tokens[0])
        self.default_system = before if before.strip() else None

    def _written(self, message: Message) -> str:
        """The content as the template writes it."""
        if self.trims:
            return message.content.strip()
        if self.strips_answer_end and message.role is Role.ASSISTANT:
            return message.content.rstrip(" ")
        return message.content

    def _find_strips_answer_end(self) -> bool:
        """Whether answers lose the spaces at their end, as Mistral's do. Raises InvalidRequest for another change."""
        roles, contents = (Role.USER, Role.ASSISTANT, Role.USER), ("q", "a  ", "q")
        messages = tuple(map(Message, roles, contents))
        text = self._text(Conversation("", messages), True)
        for answer in ("a  ", "a"):
            told = ("q", answer, "q")
            skeleton = self._skeleton(roles, True)
            if text == "".join(told[int(part.text)] if part.is_content else part.text for part in skeleton):
                return answer == "a"
        raise self._unproven("it changes the end of answers")

    def _find_trims(self) -> bool:
        """Whether contents lose the white space around them. Raises InvalidRequest if they change otherwise."""
        padded = "\n  a  b\t\n\n"
        messages = tuple(Message(role, padded) for role in (Role.USER, Role.ASSISTANT, Role.USER))
        text = self._text(Conversation("", messages), True)
        skeleton = self._skeleton((Role.USER, Role.ASSISTANT, Role.USER), True)
        for trims in (False, True):
            content = padded.strip() if trims else padded
            if text == "".join(content if segment.is_content else segment.text for segment in skeleton):
                return trims
        raise self._unproven("it changes the text of messages")
