"""From a request to token ids: the model's chat template, where text stays text, and texts that are continued."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from chaku.chat import plain_text
from chaku.chat.jinja import compile_jinja
from chaku.chat.tokenizer import Before, Tokenizer

_MOST_RECHOSEN = 8


@dataclass(frozen=True)
class Prompt:
    """Ids to generate after."""

    ids: list[int]
    rechosen: tuple[int, ...] = ()
    """The last ids of a text that is continued. They are generated again, so that the cut leaves no trace: the tokens
    of the answer may lie across it."""
    text: str | None = None
    """The text of a plain completion's prompt, as it came."""


class PromptRenderer:
    """Renders for one tokenizer and template."""

    def __init__(self, tokenizer: Tokenizer, template: str | None) -> None:
        """`template` is Jinja; None: no chats."""
        self.tokenizer = tokenizer
        self._specials = plain_text.compile_specials(tokenizer.special_ids)
        self._render = compile_jinja(template) if template is not None else None

    def chat(self, messages: Sequence[dict[str, Any]]) -> Prompt:
        """Ids of a chat. A last message of the assistant is continued. Raises InvalidRequest as the template does."""
        messages = [{**message, "content": _text_of(message.get("content"))} for message in messages]
        content = messages[-1]["content"]
        shielded, spellings = plain_text.shield(messages, self._specials) if self._specials else (list(messages), {})
        if messages[-1]["role"] != "assistant":
            return Prompt(self._ids(self._rendered(shielded, opens=True), spellings))
        mark, answer = f"q{secrets.token_hex(8)}z", shielded[-1]["content"]
        text = self._rendered([*shielded[:-1], {**shielded[-1], "content": answer + mark}], opens=False)
        text = text[: text.rindex(mark)]
        opened = self._rendered(shielded[:-1], opens=True) if shielded[:-1] else None
        if opened is None or text != opened + answer:
            return Prompt(self._ids(text, spellings))  # the template changes old answers: continued as it writes them
        ids = self._ids(opened, spellings)
        written = self.tokenizer.encode_text(content, self.before(ids))
        num_kept = _num_kept(written, self.tokenizer)
        return Prompt(ids + written[:num_kept], tuple(written[num_kept:]))

    def completion(self, prompt: str | list[int]) -> Prompt:
        """Ids of a plain completion's prompt, in which the spelling of a special token is that token."""
        if not isinstance(prompt, str):
            return Prompt(list(prompt))
        ids = self._ids(prompt, {})
        bos = self.tokenizer.special_id(self.tokenizer.bos) if self.tokenizer.bos else None
        if self.tokenizer.adds_bos and bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        return Prompt(ids, text=prompt)

    def before(self, ids: Sequence[int]) -> Before:
        """What stands before the text that follows these ids."""
        if not ids:
            return Before.START
        return Before.SPECIAL if ids[-1] in self.tokenizer.special_ids.values() else Before.TEXT

    def _rendered(self, messages: Sequence[dict[str, Any]], *, opens: bool) -> str:
        assert self._render is not None, "a model without a template serves no chats"
        tokens = {"bos_token": self.tokenizer.bos or "", "eos_token": self.tokenizer.eos}
        return self._render(messages=messages, add_generation_prompt=opens, tools=None, **tokens)

    def _ids(self, text: str, spellings: dict[str, str]) -> list[int]:
        pieces = plain_text.split(text, self._specials, spellings) if self._specials else [text] if text else []
        ids: list[int] = []
        for piece in pieces:
            if isinstance(piece, plain_text.Special):
                ids.append(self.tokenizer.special_ids[piece.spelling])
            else:
                ids += self.tokenizer.encode_text(piece, self.before(ids))
        return ids


def _text_of(content: Any) -> str:
    return "".join(part["text"] for part in content) if isinstance(content, list) else content or ""


def _num_kept(answer: Sequence[int], tokenizer: Tokenizer) -> int:
    """How many ids of an answer are kept where it is continued: all but its last word, which may be cut."""
    for kept in range(len(answer) - 1, max(0, len(answer) - _MOST_RECHOSEN), -1):
        if tokenizer.token_bytes(answer[kept])[:1].isspace():
            return kept
    return max(0, len(answer) - _MOST_RECHOSEN)
