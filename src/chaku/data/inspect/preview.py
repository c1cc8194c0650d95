"""`chaku data preview`: samples of a built set with what is trained told from what is not, as the rows hold it."""

from __future__ import annotations

import html
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from chaku import report_page
from chaku.chat.render import mask_stretches
from chaku.chat.tokenizer import Tokenizer
from chaku.data.inputs.pairs import CHOSEN, REJECTED
from chaku.data.manifest import read_manifest
from chaku.data.rows.packed import read_rows
from chaku.data.rows.rendering import open_rendering
from chaku.errors import UsageError

OPEN, CLOSE = "⟦", "⟧"
"""Around trained text, so that colour is never the only sign."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True)
class Span:
    """Neighbouring tokens that are all trained, or all not."""

    text: str
    is_trained: bool
    num_tokens: int


@dataclass(frozen=True)
class Sample:
    """One document of a row."""

    where: str
    spans: tuple[Span, ...]

    @property
    def num_tokens(self) -> int:
        """All tokens."""
        return sum(span.num_tokens for span in self.spans)

    @property
    def num_trained(self) -> int:
        """Tokens that carry loss."""
        return sum(span.num_tokens for span in self.spans if span.is_trained)


def printable(text: str) -> str:
    """Text from strangers for a terminal: control and direction characters become visible signs."""
    return _CONTROL.sub(lambda match: chr(0x2400 + ord(match[0])) if ord(match[0]) < 32 else "\ufffd", text)


def samples(
    folder: Path, number: int, *, part: str = "train", seed: int = 0, tokenizer: str | None = None
) -> Iterator[Sample]:
    """Choose documents, or pairs of them, at random (the same for the same seed) and decode them.

    Raises UsageError when the set has no rows of that part, ModelError when its tokenizer is not here.
    """
    manifest = read_manifest(folder)
    files = sorted((folder / "rows").glob(f"{part}-[0-9]*.arrow"))
    if not files or manifest["tokenizer"] is None:
        raise UsageError(f"{folder} has no {part} rows", fix="build it with a tokenizer, or choose the other part")
    config = manifest["config"]
    rendering = open_rendering(tokenizer or manifest["tokenizer"]["source"], config["template"], config["train_on"])
    chooser = random.Random(seed)  # noqa: S311 (a sample, not a secret)
    path = chooser.choice(files)
    answers = (CHOSEN, REJECTED) if part.startswith("pairs-") else ("",)
    chosen: list[tuple[str, list[tuple[NDArray[np.uint32], NDArray[np.uint8]]]]] = []
    seen = 0
    for row in read_rows(path):
        documents = list(row.documents())
        for first in range(0, len(documents), len(answers)):
            seen += 1
            at = len(chosen) if len(chosen) < number else chooser.randrange(seen)
            if at < number:
                where = f"{path.stem} row {row.number} document {first}"
                chosen[at : at + 1] = [(where, documents[first : first + len(answers)])]
    for where, together in chosen:
        for answer, (ids, loss_mask) in zip(answers, together, strict=True):
            yield Sample(f"{where} {answer}".rstrip(), tuple(_spans(ids, loss_mask, rendering.tokenizer)))


def _spans(ids: NDArray[np.uint32], loss_mask: NDArray[np.uint8], tokenizer: Tokenizer) -> Iterator[Span]:
    special_ids = frozenset(tokenizer.special_ids.values())
    numbers = ids.tolist()
    for start, end, before, is_trained in mask_stretches(numbers, loss_mask.tobytes(), special_ids):
        yield Span(tokenizer.decode(numbers[start:end], before), is_trained, end - start)


_STYLE = """
body { max-width: 60rem } h2 { font-size: 1rem }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font: 13px/1.55 ui-monospace, monospace }
pre { border: 1px solid var(--line); padding: 1rem; border-radius: 6px }
mark { background: light-dark(#bfe8cf, #14432c); color: light-dark(#06301a, #d5f5e3); border-bottom: 2px solid #1a7f5a }
"""


def page(chosen: list[Sample], title: str) -> str:
    """The samples as one HTML page without a script; trained text is marked, underlined and in brackets."""
    parts = [
        f"<h1>{html.escape(title)}</h1>",
        f"<p>Text in <mark>{OPEN}marked brackets{CLOSE}</mark> carries loss; the rest is read only.</p>",
    ]
    for sample in chosen:
        share = sample.num_trained / max(sample.num_tokens, 1)
        head = f"{sample.where}: {sample.num_trained:,} of {sample.num_tokens:,} tokens trained ({share:.0%})"
        body = "".join(
            f"<mark>{OPEN}{_escaped(span.text)}{CLOSE}</mark>" if span.is_trained else _escaped(span.text)
            for span in sample.spans
        )
        parts.append(f"<h2>{html.escape(head)}</h2><pre>{body}</pre>")
    return report_page.document(title, "\n".join(parts), style=report_page.STYLE + _STYLE)


def _escaped(text: str) -> str:
    return html.escape(printable(text))
