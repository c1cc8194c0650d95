"""The first map, one shard at a time: raw records to cleaned and judged conversations, signatures and ledger."""

from __future__ import annotations

import functools
import itertools
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from chaku.chat.messages import Conversation, Message, Role
from chaku.data.inputs import shapes
from chaku.data.inputs.counts import Inputs
from chaku.data.inputs.fields import BadMessage, Imported, UnknownShape
from chaku.data.inputs.json_stream import RawRecord
from chaku.data.inputs.pairs import Pair
from chaku.data.ledger import Decision, Flag, Ledger, StageCounts
from chaku.data.recipe import DataConfig
from chaku.data.rules import table as rules
from chaku.data.rules.content import judge_content
from chaku.data.rules.decontaminate import Questions, judge_contamination, read_questions
from chaku.data.rules.moderation import EndpointClassifier, judge_all
from chaku.data.rules.normalise import normalise
from chaku.data.rules.personal import masked, quote
from chaku.data.rules.privacy import judge_personal
from chaku.data.rules.quality import judge_quality
from chaku.data.shards import write_jsonl
from chaku.protocol.json_scan import loads
from chaku.records import atomic_folder

STAGES = (
    "import", "clean", "personal", "normalise", "language", "quality", "content", "moderation", "decontaminate",
    "pairs",
)  # fmt: skip


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
    return _Shard(task).run()


class _Shard:
    def __init__(self, task: PrepareTask) -> None:
        self.task = task
        self.config = task.config
        self.actions = rules.actions(task.config.rules)
        self.ledger = Ledger()
        self.inputs = Inputs()
        self.prompts: list[Conversation] = []

    def run(self) -> dict[str, StageCounts]:
        from chaku.data.rules.cleaning import judge_cleaned
        from chaku.data.rules.language import judge_language

        config, actions, ledger = self.config, self.actions, self.ledger
        batch = _timed(ledger, "import", lambda: list(self._import()))
        batch = self._judged("clean", batch, lambda chat: judge_cleaned(chat, actions))
        batch = self._judged("personal", batch, lambda chat: judge_personal(chat, actions))
        batch = self._judged("normalise", batch, self._normalised)
        batch = self._judged(
            "language", batch, lambda chat: judge_language(chat, config.languages, actions["language"])
        )
        batch = self._judged("quality", batch, lambda chat: judge_quality(chat, actions), only_chosen=True)
        batch = self._judged("content", batch, lambda chat: judge_content(chat, actions))
        batch = self._moderated(batch)
        if config.decontaminate and actions["contaminated"] != "off":
            questions, share = _questions(config.decontaminate), config.contamination_overlap
            action = actions["contaminated"]
            batch = self._judged(
                "decontaminate", batch, lambda chat: judge_contamination(chat, questions, share, action)
            )  # fmt: skip
        batch = self._judged("pairs", batch, _judge_pair, only_chosen=True)
        return {**ledger.counts, "signatures": self._write(batch)}

    def _judged(
        self, stage: str, batch: list[Conversation], judge: Callable[[Conversation], Decision], *,
        only_chosen: bool = False,
    ) -> list[Conversation]:  # fmt: skip
        """Judge every conversation; both sides of a pair, unless `only_chosen`."""

        def judged(chat: Conversation) -> Decision:
            decision = judge(chat)
            if only_chosen or not isinstance(chat, Pair) or decision.kept is None:
                return decision
            other = judge(Conversation(chat.id, chat.rejected, chat.tools))
            if other.kept is None:
                return replace(other, note=f"rejected answer: {other.note or ''}")
            kept = replace(chat, messages=decision.kept.messages, source=decision.kept.source)
            return replace(decision, kept=replace(kept, rejected=other.kept.messages))

        return _timed(self.ledger, stage, lambda: _record(self.ledger, stage, batch, map(judged, batch)))

    def _normalised(self, chat: Conversation) -> Decision:
        decision = normalise(chat, self.config.system)
        if decision.rule != "no_assistant" or isinstance(chat, Pair):
            return decision
        asked = tuple(itertools.takewhile(lambda message: message.role is not Role.ASSISTANT, chat.messages))
        prompt = replace(chat, messages=asked)
        judged = judge_content(prompt, self.actions)
        if judged.kept is None:
            return replace(
                decision, flags=(*decision.flags, Flag(str(judged.rule), judged.score, "not kept as prompt"))
            )
        if any(message.role is Role.USER and message.content.strip() for message in asked):
            self.prompts.append(prompt)
        return decision

    def _moderated(self, batch: list[Conversation]) -> list[Conversation]:
        config, action = self.config.moderation, self.actions["moderation"]
        if config is None or action == "off":
            return batch
        classifier, ledger = EndpointClassifier(config), self.ledger
        whole = [
            replace(chat, messages=(*chat.messages, *chat.rejected)) if isinstance(chat, Pair) else chat
            for chat in batch
        ]
        judged = judge_all(whole, classifier, action, config.concurrency)
        decisions = (
            replace(decision, kept=chat) if decision.kept is not None else decision
            for chat, decision in zip(batch, judged, strict=True)
        )
        kept = _timed(ledger, "moderation", lambda: _record(ledger, "moderation", batch, decisions))
        asked = judge_all(self.prompts, classifier, "drop", config.concurrency)
        self.prompts = [decision.kept for decision in asked if decision.kept is not None]
        return kept

    def _import(self) -> Iterator[Conversation]:
        self.ledger.stage("import")
        for number, record in self.task.records:
            name = self.task.names[number]
            identity = f"{name}:{record.place}"
            try:
                imported = _read(record, self.config)
                decisions = list(_decide(imported, identity, name, record.line))
            except _NotRead as error:
                self.inputs.not_read(number, str(error))
                note = f"{name} line {record.line}: {error}" + (f": {error.quoted}" if error.quoted else "")
                decisions = [Decision(identity, None, error.rule, note=note)]
            else:
                self.inputs.read(number, imported)
            yield from self.ledger.record("import", identity, decisions)

    def _write(self, batch: list[Conversation]) -> StageCounts:
        """Sign the conversations for `dedup`, write the shard, and return what signing took."""
        import numpy as np

        from chaku.data.rules.dedup import SIGNATURE_WIDTH, signature

        started = time.perf_counter()
        signatures = (
            np.stack([signature(chat) for chat in batch]) if batch else np.zeros((0, SIGNATURE_WIDTH), np.uint32)
        )
        signing = StageCounts(seconds=time.perf_counter() - started)
        with atomic_folder(self.task.folder) as folder:
            write_jsonl(folder / "messages.jsonl", batch)
            write_jsonl(folder / "prompts.jsonl", self.prompts)
            np.save(folder / "signatures.npy", signatures)
            np.save(folder / "ids.npy", np.array([chat.id for chat in batch], dtype=np.str_))
            self.ledger.write(folder)
            stages = {name: counts.to_json(with_seconds=True) for name, counts in self.ledger.counts.items()}
            counts = {"stages": stages, "inputs": self.inputs.to_json()}
            (folder / "counts.json").write_bytes(orjson.dumps(counts))
        return signing


@functools.cache
def _questions(paths: tuple[Path, ...]) -> Questions:
    return read_questions(paths)


def _judge_pair(chat: Conversation) -> Decision:
    """Whether two answers are still two after cleaning."""
    if isinstance(chat, Pair):
        try:
            chat.parts()
        except BadMessage as error:
            return Decision(chat.id, None, "bad_pair", note=str(error))
    return Decision(chat.id, chat)


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
    return [kept for chat, decision in pairs for kept in ledger.record(stage, chat.id, (decision,))]


class _NotRead(Exception):
    """A record that can't be read: the rule, why, and how it begins."""

    def __init__(self, rule: str, reason: str, quoted: str = "") -> None:
        super().__init__(quote(reason, 200))
        self.rule = rule
        self.quoted = quoted


def _read(record: RawRecord, config: DataConfig) -> Imported:
    """Raises _NotRead. A record costs only itself: whatever its reader trips over is its own reason."""
    if record.error is not None:
        raise _NotRead("bad_line", record.error, _quoted(record.data))
    try:
        imported = shapes.read(parse(record.data), config.oasst_paths)
    except UnknownShape as error:
        raise _NotRead("unknown_shape", str(error), _quoted(record.data)) from None
    except BadMessage as error:
        raise _NotRead("bad_message", str(error), _quoted(record.data)) from None
    except (ValueError, RecursionError) as error:
        raise _NotRead("bad_line", f"not JSON: {error}", _quoted(record.data)) from None
    unused, imported.unused = imported.unused, Counter()
    for key, times in unused.items():
        imported.unused[_masked_key(key)] += times
    return imported


def _masked_key(key: str) -> str:
    """A key's name comes from the file: cut, and personal data in it masked. "turn." and "chat." are ours."""
    place, dot, name = key.partition(".")
    return f"{place}.{quote(name, 60)}" if dot and place in ("turn", "chat") else quote(key, 60)


_ESCAPED = re.compile(r"\\[nrt]")


def _quoted(data: bytes) -> str:
    return quote(_ESCAPED.sub("  ", data[:20_000].decode("utf-8", "replace")), 120)


def _decide(imported: Imported, identity: str, name: str, line: int) -> Iterator[Decision]:
    """Raises _NotRead for what no file can hold."""
    left = imported.num_branches_left
    flags = (Flag("not_best_path", left, f"{left} other paths through the tree"),) if left else ()
    for index, chat in enumerate(imported.conversations):
        chat_id = identity if len(imported.conversations) == 1 else f"{identity}/{index}"
        source = {**chat.source, "file": name, "line": line, "format": imported.format}
        if chat.id:
            source["id"] = chat.id
        kept, source_id = replace(chat, id=chat_id, source=source), masked(chat.id)
        try:
            orjson.dumps(kept.to_json())
        except orjson.JSONEncodeError as error:
            raise _NotRead("bad_message", f"can't be written as JSON: {error}") from None
        if unreadable := next((message for message in _all_messages(chat) if message.parts), None):
            kinds = sorted({str(part.get("type"))[:40] for part in unreadable.parts})
            note = quote(f"{name} line {line}: a message has parts of type {', '.join(kinds)}", 200)
            yield Decision(chat_id, None, "bad_message", note=note, flags=flags, source_id=source_id)
        else:
            yield Decision(chat_id, kept, flags=flags, source_id=source_id)


def _all_messages(chat: Conversation) -> tuple[Message, ...]:
    return (*chat.messages, *chat.rejected) if isinstance(chat, Pair) else chat.messages


def parse(data: bytes) -> Any:
    """JSON to a value. Half surrogates, which JSON can spell and UTF-8 can't, become U+FFFD. Raises ValueError."""
    try:
        return loads(data)
    except orjson.JSONDecodeError as error:
        if b"\\ud" not in data and b"\\uD" not in data:
            raise ValueError(str(error)) from None
    text = json.dumps(json.loads(data.decode("utf-8", "replace")), ensure_ascii=False)
    return loads(text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
