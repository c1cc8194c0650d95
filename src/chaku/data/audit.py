"""`chaku data audit`: is a built set fit to train on? Everything is read back from the files, nothing is believed.

An error stops a training run (and the command exits non-zero); a warning is for a person to judge.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from chaku.chat.messages import Conversation, Role
from chaku.data.ledger import LawBroken
from chaku.data.manifest import counts_of, read_manifest
from chaku.data.parallel import ordered_map
from chaku.data.rendering import Rendering, open_rendering
from chaku.data.rows import read_rows
from chaku.errors import UsageError

_FEW_TRAINED, _MANY_TRAINED = 0.05, 0.95
_EXAMPLES = 5
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass
class Audit:
    """What was found. `errors` must stop a training run."""

    errors: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """No errors."""
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """As the manifest holds it."""
        return {"passed": self.passed, "errors": self.errors, "warnings": self.warnings, "facts": self.facts}


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
        if len(examples) < _EXAMPLES:
            examples.append(where)


# What makes a set unfit, by the key under which audit_rows counts it.
_FATAL = {
    "uneven": "rows whose columns differ in length",
    "too_long": "rows longer than pack_length",
    "bad_ids": "rows with ids that the tokenizer does not know",
    "bad_mask": "rows with a loss mask other than 0 and 1",
    "bad_documents": "rows whose doc_ids don't count up from 0",
    "untrained": "documents with no trained token",
    "unknown": "documents that no message belongs to",
    "wrong_spans": "documents whose trained spans are not the assistant's texts",
    "user_trained": "documents that train on other than assistant text",
    "forged": "documents with special tokens that did not come from the template",
}


def audit(
    folder: Path, *, questions: Sequence[Path] = (), tokenizer: str | None = None, processes: int = 1,
    least_share: float = 0.5,
) -> Audit:  # fmt: skip
    """Check a built set. `tokenizer` overrides where the manifest says the tokenizer is.

    Raises UsageError for a folder that holds no set, ModelError when the tokenizer is not here.
    """
    manifest = read_manifest(folder)
    result = Audit()
    _check_funnel(folder, manifest, result)
    places = _places(folder, result)
    _check_messages(folder, places, questions, least_share, result)
    if manifest["tokenizer"] is None:
        result.warnings.append("no rows: the set was built without a tokenizer")
        return result
    source = tokenizer or manifest["tokenizer"]["source"]
    rendering = open_rendering(source, manifest["config"]["template"], manifest["config"]["train_on"])
    if rendering.tokenizer.hash != manifest["tokenizer"]["hash"]:
        raise UsageError(f"tokenizer {source} is not the one that the set was built with", fix="give --tokenizer PATH")
    _check_rows(folder, manifest, source, places, processes, result)
    return result


def _places(folder: Path, result: Audit) -> dict[str, tuple[Path, int]]:
    """Where each conversation of the set stands: file and byte offset. An id that comes twice is an error."""
    twice: list[str] = []
    places: dict[str, tuple[Path, int]] = {}
    begins_with_id = re.compile(rb'\{"id":("(?:[^"\\]|\\.)*")')
    for path in sorted((folder / "messages").glob("t*-*.jsonl")):
        offset = 0
        with path.open("rb") as file:
            for line in file:
                match = begins_with_id.match(line)
                identity = orjson.loads(match[1] if match else line)
                identity = identity if match else identity["id"]
                if identity in places:
                    twice.append(identity)
                places[identity] = (path, offset)
                offset += len(line)
    if twice:
        result.errors.append(f"{len(twice):,} ids stand for several conversations: {', '.join(twice[:_EXAMPLES])}")
    return places


def _read_at(path: Path, offset: int) -> Conversation:
    with path.open("rb") as file:
        file.seek(offset)
        return Conversation.from_json(orjson.loads(file.readline()))


def _check_funnel(folder: Path, manifest: dict[str, Any], result: Audit) -> None:
    """The law, in the manifest and again from the ledger's own rows."""
    import pyarrow.compute as pc
    import pyarrow.parquet as parquet

    kept_before: int | None = None
    for stage, counts in counts_of(manifest).items():
        try:
            counts.check(stage)
        except LawBroken as error:
            result.errors.append(str(error))
        files = list((folder / "ledger").glob(f"*-{stage}.parquet"))
        if not files:
            result.errors.append(f"{stage}: its ledger is missing")
            continue
        decisions = parquet.read_table(files[0], columns=["decision"])["decision"].cast("string")
        kept = int(pc.sum(pc.equal(decisions, "kept")).as_py() or 0)
        if (kept, len(decisions) - kept) != (counts.kept, counts.dropped):
            result.errors.append(
                f"{stage}: the ledger says {kept} kept, {len(decisions) - kept} dropped;"
                f" the manifest {counts.kept}, {counts.dropped}"
            )
        if kept_before is not None and counts.entered != kept_before:
            result.errors.append(f"{stage}: {counts.entered} came in, the stage before kept {kept_before}")
        kept_before = counts.kept


def _check_messages(
    folder: Path, places: dict[str, tuple[Path, int]], questions: Sequence[Path], least_share: float, result: Audit
) -> None:
    """Both halves apart from each other, and neither from an evaluation file."""
    from chaku.data.decontaminate import read_questions
    from chaku.data.dedup import content_hash

    index = read_questions(questions) if questions else None
    hashes: dict[str, Counter[bytes]] = {"train": Counter(), "test": Counter()}
    overlaps: list[str] = []
    num_overlaps = 0
    for part, found in hashes.items():
        for conversation in _messages(folder, part):
            found[content_hash(conversation)] += 1
            if index is None:
                continue
            for message in conversation.messages:
                hit = index.search(message.content) if message.role is Role.USER else None
                if hit is not None and hit.share >= least_share:
                    num_overlaps += 1
                    overlaps.append(f"{conversation.id} ({hit.question[:50]!r})")
                    overlaps = overlaps[:_EXAMPLES]
                    break
    result.facts["conversations"] = {part: found.total() for part, found in hashes.items()}
    both = hashes["train"].keys() & hashes["test"].keys()
    if both:
        result.errors.append(f"{len(both)} conversations stand in both train and test")
    duplicates = sum(found.total() - len(found) for found in hashes.values())
    result.facts["exact_duplicates"] = duplicates
    if duplicates:
        result.warnings.append(f"{duplicates:,} conversations are exact duplicates of another")
    if index is not None:
        result.facts["evaluation_questions"] = len(index)
        result.facts["evaluation_overlap"] = num_overlaps
        if num_overlaps:
            result.errors.append(f"{num_overlaps} conversations hold an evaluation question: {', '.join(overlaps)}")


def _messages(folder: Path, part: str) -> Iterator[Conversation]:
    from chaku.data.shards import read_jsonl

    for path in sorted((folder / "messages").glob(f"{part}-*.jsonl")):
        yield from read_jsonl(path)


def _tasks(
    folder: Path, manifest: dict[str, Any], source: str, places: dict[str, tuple[Path, int]]
) -> Iterator[RowsFileTask]:
    import pyarrow.parquet as parquet

    ledger = next(iter((folder / "ledger").glob("*-pack.parquet")), None)
    packed: dict[str, list[str]] = {}
    if ledger is not None:
        table = parquet.read_table(ledger, columns=["id", "note"])
        for identity, note in zip(table["id"].to_pylist(), table["note"].to_pylist(), strict=True):
            packed.setdefault(str(note).partition(" ")[0], []).append(identity)
    cut = _cut_ids(folder)
    for path in sorted((folder / "rows").glob("*.arrow")):
        ids = packed.get(path.stem, [])
        where = tuple((*places[one], one in cut) if one in places else None for one in ids)
        config = manifest["config"]
        yield RowsFileTask(
            path, where, tuple(ids), source, config["template"], config["train_on"], manifest["pack_length"]
        )


def _cut_ids(folder: Path) -> set[str]:
    """Segments whose row ends at the context."""
    import pyarrow.parquet as parquet

    found: set[str] = set()
    for file in (folder / "ledger").glob("*-split.parquet"):
        table = parquet.read_table(file, columns=["id", "flags"])
        for identity, flags in zip(table["id"].to_pylist(), table["flags"].to_pylist(), strict=True):
            if any(flag["rule"] == "round_cut" for flag in flags or ()):
                found.add(identity)
    return found


def _check_rows(
    folder: Path, manifest: dict[str, Any], source: str, places: dict[str, tuple[Path, int]], processes: int,
    result: Audit,
) -> None:  # fmt: skip
    total = RowsFileFindings()
    for task, found in ordered_map(audit_rows, _tasks(folder, manifest, source, places), processes):
        total.sums.update(found.sums)
        for kind, examples in found.problems.items():
            total.problems.setdefault(kind, []).extend(f"{task.path.name} {example}" for example in examples)
        total.lengths += found.lengths
        total.digests += found.digests
    sums, facts = total.sums, result.facts
    for kind, meaning in _FATAL.items():
        if sums[kind]:
            result.errors.append(f"{sums[kind]:,} {meaning}: {'; '.join(total.problems[kind][:_EXAMPLES])}")
    expected = counts_of(manifest)["pack"].sums
    for quantity in ("tokens", "trained_tokens", "rows"):
        if sums[quantity] != expected[quantity]:
            result.errors.append(f"the rows hold {sums[quantity]:,} {quantity}, packing wrote {expected[quantity]:,}")
    share = sums["trained_tokens"] / max(sums["tokens"], 1)
    facts |= {quantity: sums[quantity] for quantity in ("rows", "documents", "tokens", "trained_tokens")}
    facts["trained_share"] = round(share, 4)
    facts["fill"] = round(sums["tokens"] / max(sums["rows"] * manifest["pack_length"], 1), 4)
    facts["document_tokens"] = {
        f"{quantile:.0%}": int(value)
        for quantile, value in zip(QUANTILES, np.quantile(total.lengths or [0], QUANTILES), strict=True)
    }
    facts["special_tokens_spelled_in_text"] = sums["spelled"]
    facts["cut_documents"] = sums["cut"]
    facts["equal_documents"] = len(total.digests) - len(set(total.digests))
    if not sums["trained_tokens"]:
        result.errors.append("no token carries loss")
    elif not _FEW_TRAINED <= share <= _MANY_TRAINED:
        result.warnings.append(f"{share:.1%} of the tokens carry loss; 20 to 90 % is usual")
    if sums["cut"]:
        lost = counts_of(manifest)["split"].sums["trained_tokens_cut"]
        result.warnings.append(f"{sums['cut']:,} documents are cut at the context; {lost:,} trained tokens are lost")


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
        self.special_ids = np.array(sorted(tokenizer.special_ids.values()), np.uint32)
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
        conversation = _read_at(place[0], place[1])
        found.sums["cut"] += place[2]
        self._compare(conversation, ids, loss_mask, place[2], f"{where} ({conversation.id})")

    def _compare(
        self, conversation: Conversation, ids: NDArray[np.uint32], loss_mask: NDArray[np.uint8], is_cut: bool,
        where: str,
    ) -> None:  # fmt: skip
        rendering, found = self.rendering, self.found
        segments = rendering.lay_out(conversation)
        turns = [index for index, message in enumerate(conversation.messages) if message.role is Role.ASSISTANT]
        if rendering.train_on == "last":
            turns = turns[-1:]
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
        from chaku.chat.tokenizer import Before

        edges = np.flatnonzero(np.diff(loss_mask, prepend=0, append=0)).tolist()
        for start, end in zip(edges[::2], edges[1::2], strict=True):
            spelled = b"".join(map(self.token_bytes.__getitem__, ids[start:end].tolist()))
            before = Before.START if start == 0 else Before.TEXT
            if start and np.isin(ids[start - 1], self.special_ids):
                before = Before.SPECIAL
            yield spelled[1:] if self.rendering.tokenizer.prepends_space(before) and spelled[:1] == b" " else spelled
