"""The second map, one shard at a time: duplicates out, split at turns, train or test, ids and loss mask to Arrow."""

from __future__ import annotations

import functools
import hashlib
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import orjson
from numpy.typing import NDArray

from chaku.chat.messages import Conversation
from chaku.chat.render import Rendered
from chaku.data.inputs.pairs import Pair, pair_line
from chaku.data.ledger import Decision, Flag, Ledger, StageCounts
from chaku.data.recipe import DataConfig
from chaku.data.rows.rendering import Rendering, rendering_of
from chaku.data.rows.split import Segment, split
from chaku.data.rules import table as rules
from chaku.data.rules.dedup import RULES as DUPLICATE_RULES
from chaku.data.rules.dedup import group_of
from chaku.data.shards import read_jsonl
from chaku.errors import InvalidRequest
from chaku.records import atomic_folder

if TYPE_CHECKING:
    import pyarrow as pa

SPLITS = ("train", "test")
PAIR_SPLITS = ("pairs-train", "pairs-test")
PARTS = (*SPLITS, *PAIR_SPLITS)
"""Files of a built set, in messages and rows alike. In rows of pairs each chosen document precedes its rejected one."""


@dataclass(frozen=True)
class TokeniseTask:
    """One prepared shard and what was decided on its duplicates (dedup.DECISION; `of` counts over all shards)."""

    index: int
    prepared: Path
    folder: Path
    config: DataConfig
    decisions: NDArray[Any]
    earlier_ids: dict[int, str]
    has_tokenizer: bool


@functools.cache
def schema() -> pa.Schema:
    """Columns of a tokenised shard."""
    import pyarrow as pa

    return pa.schema([("id", pa.string()), ("input_ids", pa.list_(pa.uint32())), ("loss_mask", pa.list_(pa.uint8()))])


def split_of(conversation: Conversation, config: DataConfig) -> str:
    """ "train" or "test", from the first prompt alone: conversations that begin with the same one go together."""
    digest = hashlib.blake2b(group_of(conversation).encode(), digest_size=8, key=str(config.seed).encode()).digest()
    return "test" if int.from_bytes(digest, "big") < config.test_fraction * 2**64 else "train"


def checksum(ids: NDArray[np.uint32], loss_mask: NDArray[np.uint8]) -> int:
    """32 bits of a document's ids and mask; their sum over a set does not depend on the order."""
    return zlib.crc32(loss_mask.tobytes(), zlib.crc32(ids.tobytes()))


def tokenise(task: TokeniseTask) -> dict[str, StageCounts]:
    """Run the stages over one shard, write its folder, and return its counts."""
    return _Shard(task).run()


class _Shard:
    def __init__(self, task: TokeniseTask) -> None:
        self.task = task
        self.config = task.config
        self.ledger = Ledger()
        self.actions = rules.actions(task.config.rules)
        self.rendering: Rendering | None = rendering_of(task.config) if task.has_tokenizer else None
        self.segments: dict[str, Segment] = {}

    def run(self) -> dict[str, StageCounts]:
        ledger = self.ledger
        stages = ("dedup", "split", "tokenise") if self.rendering else ("dedup", "split")
        for stage in stages:
            ledger.stage(stage)
        with atomic_folder(self.task.folder) as folder:
            with _Writer(folder, self.rendering is not None) as writer:
                for number, conversation in enumerate(read_jsonl(self.task.prepared / "messages.jsonl")):
                    decision = self._duplicate(conversation, number)
                    for single in ledger.record("dedup", conversation.id, (decision,)):
                        part = split_of(single, self.config)
                        if isinstance(single, Pair):
                            self._pair(single, f"pairs-{part}", writer)
                        else:
                            self._segments(single, part, writer)
            for stage in stages:
                ledger.counts[stage].check(stage)
            ledger.write(folder)
            counts = {name: stage_counts.to_json(with_seconds=True) for name, stage_counts in ledger.counts.items()}
            (folder / "counts.json").write_bytes(orjson.dumps({"stages": counts}))
        return ledger.counts

    def _duplicate(self, conversation: Conversation, number: int) -> Decision:
        row = self.task.decisions[number]
        rule = DUPLICATE_RULES[int(row["rule"])]
        if rule is None or self.actions[rule] == "off":
            return Decision(conversation.id, conversation)
        score, note = float(row["score"]), f"of {self.task.earlier_ids[int(row['of'])]}"
        if self.actions[rule] == "drop":
            return Decision(conversation.id, None, rule, score, note)
        return Decision(conversation.id, conversation, flags=(Flag(rule, score, note),))

    def _segments(self, conversation: Conversation, part: str, writer: _Writer) -> None:
        started = time.perf_counter()
        decisions = list(self._split(conversation, part))
        kept = list(self.ledger.record("split", conversation.id, decisions))
        now = time.perf_counter()
        self.ledger.counts["split"].seconds += now - started
        for segment in kept:
            writer.write(part, segment.to_json())
            if self.rendering is None:
                continue
            rendered = self.segments.pop(segment.id).rendered
            tuple(self.ledger.record("tokenise", segment.id, (self._row(segment, rendered, part, writer),)))
        if self.rendering is not None:
            self.ledger.counts["tokenise"].seconds += time.perf_counter() - now

    def _pair(self, pair: Pair, part: str, writer: _Writer) -> None:
        """Both sides or none; a pair is never cut."""
        started = time.perf_counter()
        sides = pair.sides()
        rendered: list[Rendered] = []
        decision = Decision(pair.id, pair, note=part)
        if self.rendering is not None:
            try:
                rendered = [self.rendering.render(side) for side in sides]
            except InvalidRequest as error:
                decision = Decision(pair.id, None, "no_place", note=str(error))
            else:
                decision = self._fit(pair, part, [len(side.input_ids) for side in rendered])
        kept = tuple(self.ledger.record("split", pair.id, (decision,)))
        now = time.perf_counter()
        self.ledger.counts["split"].seconds += now - started
        for _ in kept:
            writer.write(part, pair_line(pair, group_of(pair)))
        if not kept or self.rendering is None:
            return
        if all(side.num_trained for side in rendered):
            rows = zip(sides, rendered, strict=True)
            decisions = [self._row(Conversation(side.id, ()), document, part, writer) for side, document in rows]
        else:
            decisions = [Decision(pair.id, None, "nothing_to_train", note="an answer has no token that is trained")]
        tuple(self.ledger.record("tokenise", pair.id, decisions))
        self.ledger.counts["tokenise"].seconds += time.perf_counter() - now

    def _fit(self, pair: Pair, part: str, lengths: list[int]) -> Decision:
        chosen, rejected = lengths
        note = f"{part}, {chosen:,} and {rejected:,} tokens"
        if max(lengths) > self.config.context or sum(lengths) > self.config.row_length:
            return Decision(pair.id, None, "pair_too_long", sum(lengths), note)
        return Decision(pair.id, pair, None, sum(lengths), note)

    def _split(self, conversation: Conversation, part: str) -> Iterator[Decision]:
        if self.rendering is None:
            yield Decision(conversation.id, conversation, note=part)
            return
        sums = self.ledger.counts["split"].sums
        try:
            segments = split(conversation, self.rendering.render, self.config.context, self.config.overlong)
        except InvalidRequest as error:
            yield Decision(conversation.id, None, "no_place", note=str(error))
            return
        for segment in segments:
            chat, length = segment.conversation, len(segment.rendered.input_ids) + segment.num_cut
            where = f"rounds {segment.first_round + 1} to {segment.end_round} of {segment.num_rounds}"
            if segment.is_rejected:
                sums["tokens_rejected"] += length
                sums["trained_tokens_rejected"] += segment.rendered.num_trained + segment.num_trained_cut
                yield Decision(chat.id, None, "round_too_long", length, f"{where}: {length:,} tokens")
                continue
            flags: tuple[Flag, ...] = ()
            if segment.num_cut:
                sums["tokens_cut"] += segment.num_cut
                sums["trained_tokens_cut"] += segment.num_trained_cut
                lost = f"{segment.num_trained_cut:,} trained tokens of it"
                flags = (Flag("round_cut", segment.num_cut, f"{segment.num_cut:,} tokens past the context, {lost}"),)
            self.segments[chat.id] = segment
            yield Decision(chat.id, chat, None, length, f"{part}, {where}, {length:,} tokens", flags)

    def _row(self, segment: Conversation, rendered: Rendered, part: str, writer: _Writer) -> Decision:
        trained = rendered.num_trained
        if not trained:
            return Decision(
                segment.id,
                None,
                "nothing_to_train",
                len(rendered.input_ids),
                f"{len(rendered.input_ids):,} tokens, none trained",
            )
        ids, loss_mask = np.array(rendered.input_ids, np.uint32), np.array(rendered.loss_mask, np.uint8)
        writer.row(part, segment.id, ids, loss_mask)
        sums = self.ledger.counts["tokenise"].sums
        sums["tokens"] += len(ids)
        sums["trained_tokens"] += trained
        sums["checksum"] += checksum(ids, loss_mask)
        return Decision(
            segment.id, segment, None, trained / len(ids), f"{part}, {trained:,} of {len(ids):,} tokens trained"
        )


class _Writer:
    """The files of one tokenised shard: messages and rows of both splits, and the rows' lengths."""

    _BATCH_ROWS = 256

    def __init__(self, folder: Path, has_rows: bool) -> None:
        self.folder = folder
        self.has_rows = has_rows
        self._messages: dict[str, BinaryIO] = {}
        self._arrow: dict[str, Any] = {}
        self._rows: dict[str, list[tuple[str, NDArray[np.uint32], NDArray[np.uint8]]]] = {}
        self._lengths: dict[str, list[int]] = {}

    def __enter__(self) -> _Writer:
        for part in PARTS:
            self._messages[part] = (self.folder / f"{part}.jsonl").open("wb")
            if self.has_rows:
                import pyarrow as pa

                self._arrow[part] = pa.ipc.new_file(str(self.folder / f"{part}.arrow"), schema())
                self._rows[part], self._lengths[part] = [], []
        return self

    def __exit__(self, *error: object) -> None:
        for part in PARTS:
            self._messages[part].close()
            if self.has_rows:
                self._flush(part)
                self._arrow[part].close()
                np.save(self.folder / f"{part}-lengths.npy", np.array(self._lengths[part], np.int64))

    def write(self, part: str, line: dict[str, Any]) -> None:
        self._messages[part].write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))

    def row(self, part: str, identity: str, ids: NDArray[np.uint32], loss_mask: NDArray[np.uint8]) -> None:
        self._rows[part].append((identity, ids, loss_mask))
        self._lengths[part].append(len(ids))
        if len(self._rows[part]) >= self._BATCH_ROWS:
            self._flush(part)

    def _flush(self, part: str) -> None:
        import pyarrow as pa

        if not self._rows[part]:
            return
        identities, ids, masks = zip(*self._rows[part], strict=True)
        columns = [pa.array(identities, pa.string()), lists(ids), lists(masks)]
        self._arrow[part].write_batch(pa.record_batch(columns, schema=schema()))
        self._rows[part].clear()


def lists(values: Any) -> pa.Array:
    """A list column from a sequence of numpy arrays, without a Python object for each number."""
    import pyarrow as pa

    offsets = np.cumsum([0, *map(len, values)], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(values)))


@functools.lru_cache(maxsize=64)
def open_ids(path: Path) -> NDArray[np.str_]:
    """The ids of a prepared shard, memory-mapped."""
    ids: NDArray[np.str_] = np.load(path / "ids.npy", mmap_mode="r")
    return ids
