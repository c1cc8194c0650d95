"""`chaku data audit`: is a built set fit to train on? Everything is read back from the files, nothing is believed.

An error stops a training run (and the command exits non-zero); a warning is for a person to judge.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from chaku.chat.messages import Conversation, Role
from chaku.data.inputs.pairs import CHOSEN, REJECTED
from chaku.data.inspect.audit_rows import EXAMPLES, FATAL, RowsFileFindings, RowsFileTask, audit_rows
from chaku.data.ledger import LawBroken
from chaku.data.manifest import counts_of, file_errors, read_manifest
from chaku.data.parallel import Workers
from chaku.data.rows.rendering import open_rendering
from chaku.data.rows.tokenise import PARTS, SPLITS
from chaku.errors import ChakuError, UsageError

_FEW_TRAINED, _MANY_TRAINED = 0.05, 0.95
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


def audit(
    folder: Path, *, questions: Sequence[Path] = (), tokenizer: str | None = None, workers: Workers | None = None,
    least_share: float = 0.5, check_files: bool = True,
) -> Audit:  # fmt: skip
    """Check a built set, in this process without `workers`. `tokenizer` overrides where the manifest says it is.

    With `check_files`, its files are held against the sizes and hashes in the manifest. Raises UsageError for a folder
    that holds no set, ModelError when the tokenizer is not here, ChakuError for files that have become unreadable.
    """
    manifest = read_manifest(folder)
    result = Audit()
    if check_files:
        result.errors += file_errors(folder, manifest, hashes=True)
        if "files" not in manifest:
            result.warnings.append("files are not checked against hashes: the manifest is from before it held them")
    changed = list(result.errors)
    try:
        _check(folder, manifest, questions, tokenizer, workers or Workers(1), least_share, result)
    except (ChakuError, OSError, ValueError, LookupError, TypeError, RuntimeError) as error:
        if not changed:
            raise
        changes = "; ".join(changed[:EXAMPLES])  # what reading a changed file ends with says little
        raise ChakuError(f"{folder}: {changes}; reading it: {error}", fix="copy or build the set again") from error
    return result


def _check(
    folder: Path, manifest: dict[str, Any], questions: Sequence[Path], tokenizer: str | None, workers: Workers,
    least_share: float, result: Audit,
) -> None:  # fmt: skip
    _check_funnel(folder, manifest, result)
    places = _places(folder, result)
    _check_messages(folder, places, questions, least_share, result)
    if manifest["tokenizer"] is None:
        result.warnings.append("no rows: the set was built without a tokenizer")
        return
    source = tokenizer or manifest["tokenizer"]["source"]
    rendering = open_rendering(source, manifest["config"]["template"], manifest["config"]["train_on"])
    if rendering.tokenizer.hash != manifest["tokenizer"]["hash"]:
        raise UsageError(f"tokenizer {source} is not the one that the set was built with", fix="give --tokenizer PATH")
    _check_rows(folder, manifest, source, places, workers, result)


def _places(folder: Path, result: Audit) -> dict[str, tuple[Path, int]]:
    """Where each conversation of the set stands: file and byte offset. An id that comes twice is an error."""
    twice: list[str] = []
    places: dict[str, tuple[Path, int]] = {}
    begins_with_id = re.compile(rb'\{"id":("(?:[^"\\]|\\.)*")')
    for path in _files(folder, *PARTS):
        offset = 0
        with path.open("rb") as file:
            for line in file:
                match = begins_with_id.match(line)
                identity = orjson.loads(match[1] if match else line)
                identity = identity if match else identity["id"]
                is_pair = path.name.startswith("pairs-")
                for document in (f"{identity}/{CHOSEN}", f"{identity}/{REJECTED}") if is_pair else (identity,):
                    if document in places:
                        twice.append(document)
                    places[document] = (path, offset)
                offset += len(line)
    if twice:
        result.errors.append(f"{len(twice):,} ids stand for several conversations: {', '.join(twice[:EXAMPLES])}")
    return places


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
    from chaku.data.rules.decontaminate import read_questions
    from chaku.data.rules.dedup import content_hash

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
                    overlaps = overlaps[:EXAMPLES]
                    break
    result.facts["conversations"] = {part: found.total() for part, found in hashes.items()}
    result.facts["pairs"] = _check_pairs(folder, result)
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


def _check_pairs(folder: Path, result: Audit) -> dict[str, int]:
    """How many there are; no prompt of a pair may stand in the other part, in a pair or in a whole conversation."""
    from chaku.data.rules.dedup import group_of

    groups: dict[str, set[str]] = {part: set() for part in SPLITS}
    numbers: dict[str, int] = {}
    for part, found in groups.items():
        numbers[part] = 0
        for path in _files(folder, f"pairs-{part}"):
            with path.open("rb") as file:
                for line in file:
                    numbers[part] += 1
                    found.add(orjson.loads(line)["group"])
    if any(numbers.values()):
        for part in SPLITS:
            other = groups["test" if part == "train" else "train"]
            begun = (chat for chat in _messages(folder, part) if chat.source.get("rounds", [0])[0] == 0)
            groups[part] |= {group for chat in begun if (group := group_of(chat)) in other}
        if both := groups["train"] & groups["test"]:
            result.errors.append(f"{len(both):,} prompts of pairs stand in both train and test")
    return numbers


def _messages(folder: Path, part: str) -> Iterator[Conversation]:
    from chaku.data.shards import read_jsonl

    for path in _files(folder, part):
        yield from read_jsonl(path)


def _files(folder: Path, *parts: str) -> list[Path]:
    return sorted(path for part in parts for path in (folder / "messages").glob(f"{part}-[0-9]*.jsonl"))


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
        where = tuple((*places[name], name in cut) if name in places else None for name in ids)
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
    folder: Path, manifest: dict[str, Any], source: str, places: dict[str, tuple[Path, int]], workers: Workers,
    result: Audit,
) -> None:  # fmt: skip
    total = RowsFileFindings()
    for task, found in workers.ordered_map(audit_rows, _tasks(folder, manifest, source, places)):
        total.sums.update(found.sums)
        for kind, examples in found.problems.items():
            total.problems.setdefault(kind, []).extend(f"{task.path.name} {example}" for example in examples)
        total.lengths += found.lengths
        total.digests += found.digests
    sums, facts = total.sums, result.facts
    for kind, meaning in FATAL.items():
        if sums[kind]:
            result.errors.append(f"{sums[kind]:,} {meaning}: {'; '.join(total.problems[kind][:EXAMPLES])}")
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
