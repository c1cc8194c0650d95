"""A conversation as ids and loss mask, built together from its pieces. Training, serving and judging all render here.

Three rules decide the ids.

1. Special tokens are recognised in the template's own text only. Text out of the conversation stays text.
2. Everything between two special tokens is encoded as one run, so ids equal the encoding of the whole string.
3. Where loss begins or ends inside a run, the run is cut: a token belongs to one side. At the start of an answer
   that is what generation does too, because the prompt ends there. Where a tokenizer would have merged across such
   a border (`assistant\\n` and an answer that begins with a newline), the border wins over rule 2, and
   `render_prompt`, which has no borders, differs from training in that one place; `whole_string_ids` shows it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from chaku.chat.messages import Conversation, Role
from chaku.chat.segments import EOS, Layout, Segment
from chaku.chat.tokenizer import Before, Tokenizer

Turns = Literal["all", "last"]


@dataclass(frozen=True, slots=True)
class Rendered:
    """Ids of a whole conversation and, for each, 1 where it carries loss. The mask is not shifted."""

    input_ids: list[int]
    loss_mask: list[int]

    @property
    def num_trained(self) -> int:
        """Tokens that carry loss."""
        return sum(self.loss_mask)

    def cut(self, length: int) -> Rendered:
        """The first `length` tokens."""
        return Rendered(self.input_ids[:length], self.loss_mask[:length])


def supervised_turns(conversation: Conversation, turns: Turns) -> set[int]:
    """Numbers of the messages that carry loss: the assistant's of weight 1, all of them or the last turn alone."""
    answers = [index for index, message in enumerate(conversation.messages) if message.role is Role.ASSISTANT]
    chosen = answers[-1:] if turns == "last" else answers
    return {index for index in chosen if conversation.messages[index].weight}


class Renderer:
    """Renders conversations in one format with one tokenizer. Keeps a cache of short template texts."""

    def __init__(self, layout: Layout, tokenizer: Tokenizer) -> None:
        self.layout = layout
        self.tokenizer = tokenizer
        spellings = sorted(tokenizer.special_ids, key=len, reverse=True)
        self._special = re.compile(f"({'|'.join(map(re.escape, spellings))})") if spellings else None
        end = layout.end.replace(EOS, tokenizer.eos)
        found = self._special.findall(end) if self._special else []
        self.stop_ids = {tokenizer.special_ids[spelling] for spelling in [*found, tokenizer.eos]}
        """Ids that end an answer."""
        self.stop_strings = layout.stop if found or layout.stop else (end,)
        """Texts that end an answer; none where it ends with a special token."""
        self._encode_short = functools.lru_cache(maxsize=4096)(tokenizer.encode_text)

    def render_for_training(self, conversation: Conversation, *, turns: Turns = "all") -> Rendered:
        """Ids and loss mask. Loss lies on what the assistant emits (reasoning, text, tool calls, the end of its turn),
        in all its turns of weight 1 or the last turn, and nowhere else.

        Raises InvalidRequest for what the format has no place for.
        """
        supervised = supervised_turns(conversation, turns)
        return self._encode(self._segments(conversation, generation_prompt=False), supervised)

    def render_prompt(self, conversation: Conversation) -> list[int]:
        """Ids that lead to the next answer: the conversation and the start of the assistant's turn.

        They equal the engine's ids of the `prompt_segments` joined, special tokens read in template text alone.
        Raises InvalidRequest for what the format has no place for.
        """
        return self._encode(self._segments(conversation, generation_prompt=True), set()).input_ids

    def whole_string_ids(self, conversation: Conversation) -> list[int]:
        """Ids by rules 1 and 2 alone. They differ from training's where a border of loss cut what would have merged."""
        return self._encode(self._segments(conversation, generation_prompt=False), set()).input_ids

    def prompt_segments(self, conversation: Conversation) -> list[Segment]:
        """The prompt's text in pieces, for engines that take a string; special tokens stand in template text only."""
        return self._segments(conversation, generation_prompt=True)

    def _segments(self, conversation: Conversation, *, generation_prompt: bool) -> list[Segment]:
        bos, eos = (self.tokenizer.bos or "") if self.tokenizer.adds_bos else "", self.tokenizer.eos
        return list(self.layout.lay_out(conversation, bos=bos, eos=eos, generation_prompt=generation_prompt))

    def _encode(self, segments: Iterable[Segment], supervised: set[int]) -> Rendered:
        ids: list[int] = []
        mask: list[int] = []
        run: list[str] = []
        run_is_content = run_loss = False
        before = Before.START

        def close_run() -> None:
            nonlocal before, run_is_content
            text = "".join(run)
            if text:
                encoded = self._encode_run(text, before, run_is_content)
                ids.extend(encoded)
                mask.extend([int(run_loss)] * len(encoded))
                before = Before.TEXT
            run.clear()
            run_is_content = False

        for segment in segments:
            loss = segment.turn in supervised
            if loss != run_loss:
                close_run()
                run_loss = loss
            if segment.is_content or self._special is None:
                run.append(segment.text)
                run_is_content = run_is_content or segment.is_content
                continue
            text, *found = self._special.split(segment.text)
            run.append(text)
            for spelling, text in zip(found[::2], found[1::2], strict=True):
                close_run()
                ids.append(self.tokenizer.special_ids[spelling])
                mask.append(int(loss))
                before = Before.SPECIAL
                run.append(text)
        close_run()
        return Rendered(ids, mask)

    def _encode_run(self, text: str, before: Before, is_content: bool) -> Sequence[int]:
        if is_content:
            return self.tokenizer.encode_text(text, before)
        return self._encode_short(text, before)


def supervised_texts(input_ids: Sequence[int], loss_mask: Sequence[int], tokenizer: Tokenizer) -> list[str]:
    """What each stretch of trained ids says, special tokens spelled out: the answers with their ends."""
    special_ids = frozenset(tokenizer.special_ids.values())
    stretches = mask_stretches(input_ids, bytes(loss_mask), special_ids)
    return [tokenizer.decode(input_ids[part.start : part.end], part.before) for part in stretches if part.is_trained]


class Stretch(NamedTuple):
    """Neighbouring ids from `start` to `end` that all carry loss, or all don't, and what stands before them."""

    start: int
    end: int
    before: Before
    is_trained: bool


def mask_stretches(input_ids: Sequence[int], loss_mask: bytes, special_ids: Container[int]) -> Iterator[Stretch]:
    """Cut a document where its loss mask (a byte for each id, 0 or 1) changes."""
    start = 0
    while start < len(loss_mask):
        is_trained = bool(loss_mask[start])
        end = loss_mask.find(b"\0" if is_trained else b"\1", start)
        end = len(loss_mask) if end < 0 else end
        before = Before.START if start == 0 else Before.TEXT
        if start and input_ids[start - 1] in special_ids:
            before = Before.SPECIAL
        yield Stretch(start, end, before, is_trained)
        start = end
