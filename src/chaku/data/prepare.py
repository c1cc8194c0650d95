"""The first map, one shard at a time: raw records to cleaned and judged conversations, signatures and ledger."""

from __future__ import annotations

import functools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from chaku.chat.messages import Conversation, Message, Role
from chaku.data.inputs import shapes
from chaku.data.inputs.normalise import normalise
from chaku.data.inputs.sources import RawRecord
from chaku.data.ledger import Decision, Flag, Ledger, StageCounts
from chaku.data.recipe import DataConfig
from chaku.data.rules import table as rules
from chaku.data.rules.content import judge_content
from chaku.data.rules.decontaminate import Questions, judge_contamination, read_questions
from chaku.data.rules.moderation import EndpointClassifier, judge_all
from chaku.data.rules.quality import judge_quality
from chaku.data.shards import write_folder, write_jsonl

STAGES = ("import", "clean", "normalise", "language", "quality", "content", "moderation", "decontaminate")


@dataclass(frozen=True)
class PrepareTask:
    """Some raw records in a row: (number of the input, record)."""

    index: int
    folder: Path
    config: DataConfig
    names: tuple[str, ...]
    """What ids of each input begin with."""
    records: tuple[tuple[int, RawRecord], ...]


def prepare(task: PrepareTask) -> dict[str, StageCounts]:
    """Run the stages over one shard, write its folder, and return its counts."""
    config, ledger = task.config, Ledger()
    actions = rules.actions(config.rules)
    formats: Counter[str] = Counter()
    prompts: list[Conversation] = []

    batch = _timed(ledger, "import", lambda: list(_import(task, ledger, formats)))
    batch = _each(ledger, "clean", batch, lambda one: clean(one, actions["error_answer"]))

    def normalised(one: Conversation) -> Decision:
        decision = normalise(one, config.system)
        if decision.rule == "no_assistant":
            prompts.append(one)
        return decision

    batch = _each(ledger, "normalise", batch, normalised)
    from chaku.data.rules.language import judge_language

    batch = _each(ledger, "language", batch, lambda one: judge_language(one, config.languages, actions["language"]))
    batch = _each(ledger, "quality", batch, lambda one: judge_quality(one, actions))
    batch = _each(ledger, "content", batch, lambda one: judge_content(one, actions))
    if config.moderation is not None and actions["moderation"] != "off":
        classifier, moderation = EndpointClassifier(config.moderation), config.moderation
        judged = judge_all(batch, classifier, actions["moderation"], moderation.concurrency)
        batch = _timed(ledger, "moderation", lambda: _record(ledger, "moderation", batch, judged))
    if config.decontaminate and actions["contaminated"] != "off":
        questions, share, action = (
            _questions(config.decontaminate),
            config.contamination_overlap,
            actions["contaminated"],
        )
        batch = _each(ledger, "decontaminate", batch, lambda one: judge_contamination(one, questions, share, action))
    signing = _write(task, batch, prompts, ledger, formats)
    return {**ledger.counts, "signatures": signing}


def _write(
    task: PrepareTask, batch: list[Conversation], prompts: list[Conversation], ledger: Ledger, formats: Counter[str]
) -> StageCounts:
    """Sign the conversations for `dedup`, write the shard, and return what signing took."""
    import numpy as np

    from chaku.data.rules.dedup import SIGNATURE_WIDTH, signature

    started = time.perf_counter()
    signatures = np.stack([signature(one) for one in batch]) if batch else np.zeros((0, SIGNATURE_WIDTH), np.uint32)
    signing = StageCounts(seconds=time.perf_counter() - started)
    with write_folder(task.folder) as folder:
        write_jsonl(folder / "messages.jsonl", batch)
        write_jsonl(folder / "prompts.jsonl", prompts)
        np.save(folder / "signatures.npy", signatures)
        np.save(folder / "ids.npy", np.array([one.id for one in batch], dtype=np.str_))
        ledger.write(folder)
        stages = {name: each.to_json(with_seconds=True) for name, each in ledger.counts.items()}
        (folder / "counts.json").write_bytes(orjson.dumps({"stages": stages, "formats": dict(sorted(formats.items()))}))
    return signing


@functools.cache
def _questions(paths: tuple[Path, ...]) -> Questions:
    return read_questions(paths)


def _timed(ledger: Ledger, stage: str, work: Callable[[], list[Conversation]]) -> list[Conversation]:
    started = time.perf_counter()
    kept = work()
    counts = ledger.stage(stage)
    counts.seconds += time.perf_counter() - started
    counts.check(stage)
    if counts.kept != len(kept):
        raise AssertionError(f"{stage} recorded {counts.kept} kept and passed {len(kept)} on")
    return kept


def _record(
    ledger: Ledger, stage: str, batch: Sequence[Conversation], decisions: Iterable[Decision]
) -> list[Conversation]:
    pairs = zip(batch, decisions, strict=True)
    return [kept for one, decision in pairs for kept in ledger.record(stage, one.id, (decision,))]


def _each(
    ledger: Ledger, stage: str, batch: list[Conversation], judge: Callable[[Conversation], Decision]
) -> list[Conversation]:
    return _timed(ledger, stage, lambda: _record(ledger, stage, batch, map(judge, batch)))


def _import(task: PrepareTask, ledger: Ledger, formats: Counter[str]) -> Iterator[Conversation]:
    ledger.stage("import")
    for number, record in task.records:
        name = task.names[number]
        identity = f"{name}:{record.place}"
        try:
            if record.error is not None:
                raise ValueError(record.error)
            imported = shapes.read(parse(record.data), task.config.oasst_paths)
        except (ValueError, shapes.UnknownShape, shapes.BadMessage) as error:
            rule = {ValueError: "bad_line", shapes.UnknownShape: "unknown_shape"}.get(
                ValueError if isinstance(error, ValueError) else type(error), "bad_message"
            )
            quoted = record.data[:120].decode("utf-8", "replace")
            note = f"{name} line {record.line}: {error}: {quoted}"
            yield from ledger.record("import", identity, (Decision(identity, None, rule, note=note),))
            continue
        formats[f"{number}:{imported.format}"] += 1
        yield from ledger.record("import", identity, _decide(imported, identity, name, record.line))


def _decide(imported: shapes.Imported, identity: str, name: str, line: int) -> Iterator[Decision]:
    left = imported.num_branches_left
    flags = (Flag("not_best_path", left, f"{left} other paths through the tree"),) if left else ()
    for index, one in enumerate(imported.conversations):
        own = identity if len(imported.conversations) == 1 else f"{identity}/{index}"
        source = {**one.source, "file": name, "line": line, "format": imported.format}
        if one.id:
            source["id"] = one.id
        if unreadable := next((message for message in one.messages if message.parts), None):
            kinds = sorted({str(part.get("type")) for part in unreadable.parts})
            note = f"{name} line {line}: a message has parts of type {', '.join(kinds)}"
            yield Decision(own, None, "bad_message", note=note, flags=flags, source_id=one.id)
        else:
            yield Decision(own, replace(one, id=own, source=source), flags=flags, source_id=one.id)


def parse(data: bytes) -> Any:
    """JSON to a value. Half surrogates, which JSON can spell and UTF-8 can't, become U+FFFD. Raises ValueError."""
    try:
        return orjson.loads(data)
    except orjson.JSONDecodeError as error:
        if b"\\ud" not in data and b"\\uD" not in data:
            raise ValueError(str(error)) from None
    text = json.dumps(json.loads(data.decode("utf-8")), ensure_ascii=False)
    return orjson.loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))


def clean(conversation: Conversation, error_action: rules.Action) -> Decision:
    """Turn the HTML in each turn to Markdown; an answer that is an error text decides by its rule."""
    from chaku.data.html.clean import clean_text

    flags: list[Flag] = []
    messages: list[Message] = []
    for message in conversation.messages:
        if message.role is Role.TOOL or not message.content:
            messages.append(message)
            continue
        cleaned = clean_text(message.content)
        notes = ", ".join(cleaned.notes)
        if message.role is Role.ASSISTANT and "error_text" in cleaned.notes:
            if error_action == "drop":
                return Decision(conversation.id, None, "error_answer", note=message.content[:80], flags=tuple(flags))
            if error_action == "flag":
                flags.append(Flag("error_answer", None, message.content[:80]))
        if cleaned.text != message.content:
            flags.append(Flag("cleaned", len(message.content) - len(cleaned.text), notes or cleaned.kind))
        messages.append(replace(message, content=cleaned.text))
    return Decision(conversation.id, replace(conversation, messages=tuple(messages)), flags=_gathered(flags))


def _gathered(flags: Sequence[Flag]) -> tuple[Flag, ...]:
    """One `cleaned` flag a conversation: characters that went, and all that was done."""
    cleaned = [flag for flag in flags if flag.rule == "cleaned"]
    if len(cleaned) < 2:
        return tuple(flags)
    notes = ", ".join(dict.fromkeys(note for flag in cleaned for note in (flag.note or "").split(", ") if note))
    total = Flag("cleaned", sum(flag.score or 0 for flag in cleaned), notes)
    return (total, *(flag for flag in flags if flag.rule != "cleaned"))
