"""The text of FastChat's workers: prompts in the template that a worker names, and answers as what is new in them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chaku.chat.messages import Conversation
from chaku.chat.plain_text import broken, compile_specials
from chaku.chat.stopping import StopStrings
from chaku.chat.templates import Template, get_template
from chaku.protocol.fastchat import ConversationTemplate


@dataclass(frozen=True)
class _Family:
    """A built-in template, and the tokens that FastChat's tokenizers have for the beginning and the end."""

    template: str
    bos: str
    eos: str


_LLAMA = ("<s>", "</s>")
_CHATML = _Family("chatml", "", "<|im_end|>")
_FAMILIES = {
    "vicuna_v1.1": _Family("vicuna_v1.1", *_LLAMA),
    "one_shot": _Family("vicuna_v0", *_LLAMA),
    "zero_shot": _Family("vicuna_v0", *_LLAMA),
    "llama-2": _Family("llama2", *_LLAMA),
    "llama-3": _Family("llama3", "<|begin_of_text|>", "<|eot_id|>"),
    "meta-llama-3.1": _Family("llama3", "<|begin_of_text|>", "<|eot_id|>"),
    "mistral": _Family("mistral", *_LLAMA),
    "gemma": _Family("gemma", "<bos>", "<eos>"),
    "zephyr": _Family("zephyr", *_LLAMA),
    "qwen-7b-chat": _CHATML,
    "OpenHermes-2.5-Mistral-7B": _CHATML,
    "Nous-Hermes-2-Mixtral-8x7B-DPO": _CHATML,
    "orca-2": _CHATML,
    "dolphin-2.2.1-mistral-7b": _CHATML,
    "mistral-7b-openorca": _CHATML,
    "Yi-34b-chat": _CHATML,
}
"""FastChat's names of templates that chaku has too."""


class Prompts:
    """Writes conversations in the template that a worker names; `is_known` says whether chaku has it."""

    def __init__(self, told: ConversationTemplate) -> None:
        family = _FAMILIES.get(told.name)
        self.name = told.name
        self.is_known = family is not None
        self._told = told
        self._family = family or _CHATML
        self._template: Template = get_template(self._family.template)
        marks = (self._family.bos, self._family.eos, *self._template.tokens)
        self._specials = compile_specials(marks)
        stops = told.stop_str or ()
        self.stops: tuple[str, ...] = tuple(
            dict.fromkeys((*((stops,) if isinstance(stops, str) else stops), *self._template.stop))
        )
        """Texts that end an answer."""
        self.stop_token_ids = list(told.stop_token_ids or ())

    def write(self, messages: Sequence[dict[str, Any]]) -> tuple[str, bool]:
        """The prompt without the beginning token, which the worker adds, and whether a special token was broken apart.

        A worker reads special tokens in the whole text, so a zero-width space goes into one that a message spells.
        Raises InvalidRequest for what the template has no place for.
        """
        given = list(messages)
        if given[0]["role"] not in ("system", "developer") and self._told.system_message:
            given.insert(0, {"role": "system", "content": self._told.system_message})
        first = 1 if given[0]["role"] in ("system", "developer") else 0
        given[first:first] = self._examples()
        conversation = Conversation.from_json({"messages": given})
        bos = self._family.bos
        segments = self._template.lay_out(conversation, bos=bos, eos=self._family.eos, generation_prompt=True)
        was_broken = False
        texts = []
        for segment in segments:
            text = segment.text
            if segment.is_content and self._specials is not None and self._specials.search(text):
                was_broken = True
                text = self._specials.sub(broken, text)
            texts.append(text)
        return "".join(texts).removeprefix(bos), was_broken

    def _examples(self) -> list[dict[str, Any]]:
        """The messages with which the worker's template begins every conversation."""
        user = self._told.roles[0]
        return [{"role": "user" if who == user else "assistant", "content": text} for who, text in self._told.messages]


_UNDECIDED = re.compile(r"(?:\ufffd+| (?:n'?|'[vr]?)?)$")
"""An end that the next token may change: half of a character, or a space that the decoder takes away before
punctuation and English endings (transformers' clean_up_tokenization_spaces)."""


class NewText:
    """Turns texts that hold everything so far into what is new, up to the first stop string."""

    def __init__(self, stops: Sequence[str]) -> None:
        self._sent = ""
        self._stops = StopStrings(stops)
        self.was_changed = False
        """Whether a text was not the beginning of the next one: something that was sent stands differently now."""

    @property
    def has_stopped(self) -> bool:
        """Whether a stop string ended the answer."""
        return self._stops.stopped_by is not None

    def push(self, text: str, *, is_last: bool = False) -> str:
        """What is new in `text`. An end that may still change is held back until the last one."""
        if not is_last:
            text = text[: found.start()] if (found := _UNDECIDED.search(text)) else text
        if text.startswith(self._sent):
            new, self._sent = text[len(self._sent) :], text
        elif self._sent.startswith(text) and not is_last:
            new = ""  # a stop string that begins is held back by the worker too
        else:
            self.was_changed = self.was_changed or not self._sent.startswith(text)
            new, self._sent = text[len(self._sent) :], self._sent + text[len(self._sent) :]
        shown = self._stops.push(new)
        return shown + self._stops.flush() if is_last else shown
