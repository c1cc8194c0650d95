"""A rendered conversation before it becomes ids: pieces of text that know where they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from chaku.chat.messages import Conversation

# In template strings these two stand for the tokenizer's own tokens.
BOS = "\ue001"
EOS = "\ue002"


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of the rendered string."""

    text: str
    is_content: bool
    """It came out of the conversation: special tokens spelled in it are plain text."""
    turn: int | None = None
    """Index of the assistant message that emits it. None: it is never emitted, so it never carries loss."""


class Layout(Protocol):
    """A chat format: where everything in a conversation goes. `Template` and `JinjaTemplate` are layouts."""

    @property
    def name(self) -> str:
        """As configuration and manifests spell it."""

    @property
    def hash(self) -> str:
        """Sha256 of what determines the rendered string, hexadecimal."""

    @property
    def end(self) -> str:
        """What ends an answer and carries loss; EOS stands for the tokenizer's token."""

    @property
    def stop(self) -> tuple[str, ...]:
        """Stop strings, for formats whose answers never end with a special token."""

    def lay_out(
        self, conversation: Conversation, *, bos: str, eos: str, generation_prompt: bool = False
    ) -> Sequence[Segment]:
        """The whole conversation in order. Raises InvalidRequest for what the format has no place for."""
