"""One file of packed rows against the messages that it was made of: the part of the audit that reads every token."""

from __future__ import annotations

import itertools
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson
from numpy.typing import NDArray

from chaku.chat.messages import Conversation
from chaku.chat.render import mask_stretches, supervised_turns
from chaku.data.inputs.pairs import CHOSEN, REJECTED, pair_of_line
from chaku.data.rows.packed import read_rows
from chaku.data.rows.rendering import Rendering, open_rendering

EXAMPLES = 5
"""Places shown for each problem."""

# What makes a set unfit, by the key under which audit_rows counts it.
FATAL = {
    "uneven": "rows whose columns differ in length",
    "too_long": "rows longer than pack_length",
    "bad_ids": "rows with ids that the tokenizer does not know",
    "bad_mask": "rows with a loss mask other than 0 and 1",
    "bad_documents": "rows whose doc_ids don't count up from 0",
    "untrained": "documents with no trained token",
    "unknown": "documents that no message belongs to",
    "wrong_spans": "documents whose trained spans are not the assistant's texts",
    "user_trained": "documents that train on other than assistant text",
    "unpaired": "rows whose chosen and rejected answers are not neighbours",
    "forged": "documents with special tokens that did not come from the template",
}


@dataclass(frozen=True)
class RowsFileTask:
    """One file of rows, and for each of its documents the place of its messages: (file, byte offset, cut short)."""

    path: Path
    places: tuple[tuple[Path, int, bool] | None, ...]
    ids: tuple[str, ...]
    tokenizer: str
    template: str | None
    train_on: str
    row_length: int


@dataclass
class RowsFileFindings:
    """Sums over one file of rows."""

    sums: Counter[str] = field(default_factory=Counter)
    problems: dict[str, list[str]] = field(default_factory=dict)
    lengths: list[int] = field(default_factory=list)
    digests: list[int] = field(default_factory=list)

    def problem(self, kind: str, where: str) -> None:
        """Count a problem, and keep the first few places."""
        self.sums[kind] += 1
        examples = self.problems.setdefault(kind, [])
        if len(examples) < EXAMPLES:
            examples.append(where)


def _read_at(path: Path, offset: int, identity: str) -> Conversation:
    with path.open("rb") as file:
        file.seek(offset)
        line = orjson.loads(file.readline())
    if "rejected" not in line:
        return Conversation.from_json(line)
    chosen, rejected = pair_of_line(line).sides()
    return chosen if identity == chosen.id else rejected


def _are_pairs(ids: Sequence[str]) -> bool:
    """Whether ids of a row's documents are ID/chosen, ID/rejected, and so on."""
    wanted = ((f"{stem}/{CHOSEN}", f"{stem}/{REJECTED}") for stem in (name.rpartition("/")[0] for name in ids[::2]))
    return len(ids) % 2 == 0 and list(itertools.chain.from_iterable(wanted)) == list(ids)


def audit_rows(task: RowsFileTask) -> RowsFileFindings:
    """Check one file of rows against the messages that it was made of."""
    rendering = open_rendering(task.tokenizer, task.template, task.train_on)
    checker = _Documents(rendering, task)
    found = checker.found
    for row in read_rows(task.path):
        where = f"row {row.number}"
        found.sums["rows"] += 1
        found.sums["tokens"] += len(row.ids)
        found.sums["trained_tokens"] += int(np.count_nonzero(row.loss_mask))
        if not len(row.ids) == len(row.loss_mask) == len(row.doc_ids):
            found.problem("uneven", where)
            continue
        if len(row.ids) > task.row_length:
            found.problem("too_long", where)
        if len(row.ids) and int(row.ids.max()) >= rendering.tokenizer.vocab_size:
            found.problem("bad_ids", where)
            continue
        if np.setdiff1d(row.loss_mask, (0, 1)).size:
            found.problem("bad_mask", where)
        steps = np.diff(row.doc_ids.astype(np.int32))
        if not len(row.doc_ids) or row.doc_ids[0] != 0 or np.setdiff1d(steps, (0, 1)).size:
            found.problem("bad_documents", where)
            continue
        num_documents = int(row.doc_ids[-1]) + 1
        names = task.ids[checker.position : checker.position + num_documents]
        if task.path.name.startswith("pairs-") and not _are_pairs(names):
            found.problem("unpaired", where)
        for number, (ids, loss_mask) in enumerate(row.documents()):
            checker.check(ids, loss_mask, f"{where} document {number}")
    if checker.position != len(task.ids):
        found.problem("unknown", f"{len(task.ids)} documents in the ledger, {checker.position} in the file")
    return found


class _Documents:
    """Walks the documents of a file beside the messages that they were made of."""

    def __init__(self, rendering: Rendering, task: RowsFileTask) -> None:
        self.rendering = rendering
        self.task = task
        self.found = RowsFileFindings()
        self.position = 0
        tokenizer = rendering.tokenizer
        self.specials = frozenset(tokenizer.special_ids.values())
        self.special_ids = np.array(sorted(self.specials), np.uint32)
        spellings = sorted(tokenizer.special_ids, key=len, reverse=True)
        self.special = re.compile("|".join(map(re.escape, spellings)) or r"(?!)")
        self.token_bytes = [tokenizer.token_bytes(token_id) for token_id in range(tokenizer.vocab_size)]

    def check(self, ids: NDArray[np.uint32], loss_mask: NDArray[np.uint8], where: str) -> None:
        """Compare the next document of the file."""
        position, self.position = self.position, self.position + 1
        found = self.found
        found.sums["documents"] += 1
        found.lengths.append(len(ids))
        found.digests.append(zlib.crc32(ids.tobytes()) << 32 | zlib.crc32(loss_mask.tobytes()))
        if not loss_mask.any():
            found.problem("untrained", where)
        place = self.task.places[position] if position < len(self.task.places) else None
        if place is None:
            found.problem("unknown", where)
            return
        conversation = _read_at(place[0], place[1], self.task.ids[position])
        found.sums["cut"] += place[2]
        self._compare(conversation, ids, loss_mask, place[2], f"{where} ({conversation.id})")

    def _compare(
        self, conversation: Conversation, ids: NDArray[np.uint32], loss_mask: NDArray[np.uint8], is_cut: bool,
        where: str,
    ) -> None:  # fmt: skip
        rendering, found = self.rendering, self.found
        segments = rendering.lay_out(conversation)
        turns = sorted(supervised_turns(conversation, rendering.turns))
        wanted = ["".join(segment.text for segment in segments if segment.turn == turn).encode() for turn in turns]
        spans = list(self._trained(ids, loss_mask))
        is_right = b"".join(wanted).startswith(b"".join(spans)) if is_cut else spans == wanted
        if not is_right:
            is_more = sum(map(len, spans)) > sum(map(len, wanted))
            found.problem("user_trained" if is_more else "wrong_spans", where)
        if any(self.special.search(segment.text) for segment in segments if segment.is_content):
            found.sums["spelled"] += 1
        in_template = sum(len(self.special.findall(segment.text)) for segment in segments if not segment.is_content)
        in_row = int(np.isin(ids, self.special_ids).sum())
        if in_row > in_template or (in_row < in_template and not is_cut):
            found.problem("forged", where)

    def _trained(self, ids: NDArray[np.uint32], loss_mask: NDArray[np.uint8]) -> Iterator[bytes]:
        """The bytes of each trained stretch, without the space that a tokenizer put in front by itself."""
        numbers = ids.tolist()
        for start, end, before, is_trained in mask_stretches(numbers, loss_mask.tobytes(), self.specials):
            if not is_trained:
                continue
            spelled = b"".join(map(self.token_bytes.__getitem__, numbers[start:end]))
            yield spelled[1:] if self.rendering.tokenizer.prepends_space(before) and spelled[:1] == b" " else spelled
