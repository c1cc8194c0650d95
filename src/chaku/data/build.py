"""`chaku data build`: the whole way from files to a built set, resumable at any moment.

Map: prepare (import to decontaminate) -> barrier: duplicates -> map: tokenise (split, ids) -> barrier: packing plan ->
map: rows -> audit -> publish. Each shard is a folder that is whole or absent under DIR/.work/KEY, where KEY stands for
everything that determines the bytes; what is there is not done again. The manifest comes last.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import orjson

import chaku
from chaku.data import prepare
from chaku.data.inputs import sources
from chaku.data.inputs.counts import Inputs
from chaku.data.inputs.json_stream import RawRecord
from chaku.data.ledger import LawBroken, StageCounts, merge
from chaku.data.manifest import FORMAT, describe_files, describe_inputs, read_manifest, write_json
from chaku.data.parallel import Workers, num_cores
from chaku.data.publish import join, publish
from chaku.data.recipe import DataConfig
from chaku.data.same_set import is_same_set, settings_of
from chaku.data.watcher import Silent, Watcher
from chaku.errors import ModelError, UsageError
from chaku.records import atomic_write, sha256_file

log = logging.getLogger(__name__)

STAGES = (
    *prepare.STAGES, "dedup", "split", "tokenise", "pack",
)  # fmt: skip
_RECORDS_PER_SHARD = 1000
_BYTES_PER_SHARD = 8 << 20


@dataclass(frozen=True)
class Built:
    """What a build gives back."""

    folder: Path
    manifest: dict[str, Any]
    was_there: bool
    """The same set had been built before; nothing was done."""


def build(
    config: DataConfig,
    folder: Path,
    *,
    name: str = "unnamed",
    processes: int | None = None,
    overwrite: bool = False,
    keep_older: bool = False,
    watcher: Watcher | None = None,
) -> Built:
    """Build a set, or go on with one that was interrupted. Same input, config and seed give the same bytes.

    With `keep_older`, a set of the same inputs and settings stays as it is though an older chaku built it.
    Raises UsageError for inputs that can't be read and for a folder that holds another set.
    """
    with Workers(processes or num_cores()) as workers:
        return _Build(config, folder, name, workers, watcher or Silent()).run(overwrite, keep_older)


Task = TypeVar("Task")


class _Build:
    def __init__(self, config: DataConfig, folder: Path, name: str, workers: Workers, watcher: Watcher) -> None:
        if not config.inputs:
            raise UsageError("no input files", fix="name some: chaku data build FILE... -o DIR")
        self.config = config
        self.folder = folder
        self.name = name
        self.workers = workers
        self.watcher = watcher
        self.inputs = list(config.inputs)
        self.names = _unique_stems(self.inputs)
        self.rendering, self.missing = self._open_rendering()
        self.containers = [sources.detect(path) for path in self.inputs]
        self.digests = [sha256_file(path) for path in self.inputs]
        self.described = self._describe()
        self.key = hashlib.sha256(orjson.dumps(self.described, option=orjson.OPT_SORT_KEYS)).hexdigest()
        self.work = folder / ".work" / self.key[:16]
        self.counts: dict[str, StageCounts] = {}
        self.input_counts = Inputs()

    def _open_rendering(self) -> tuple[Any, ModelError | None]:
        from chaku.data.rows.rendering import rendering_of

        try:
            return rendering_of(self.config), None
        except ModelError as error:
            if "tokenizer" in self.config.model_fields_set:
                raise
            return None, error

    def _describe(self) -> dict[str, Any]:
        rendering = self.rendering
        return {
            "format": FORMAT,
            "chaku": chaku.__version__,
            "name": self.name,
            "inputs": list(zip(self.names, self.digests, strict=True)),
            "config": settings_of(self.config),
            "decontaminate": [[path.name, sha256_file(path)] for path in self.config.decontaminate],
            "tokenizer": rendering and {"source": self.config.tokenizer, "hash": rendering.tokenizer.hash},
            "template": rendering and {"name": rendering.template.name, "hash": rendering.template.hash},
        }

    def run(self, overwrite: bool, keep_older: bool) -> Built:
        if self._is_built(keep_older):
            shutil.rmtree(self.folder / ".work", ignore_errors=True)
            return Built(self.folder, read_manifest(self.folder), was_there=True)
        if (self.folder / "manifest.json").exists() and not overwrite:
            raise UsageError(
                f"{self.folder} holds another set (other inputs, settings or chaku version)",
                fix="choose another folder, or say --overwrite",
            )
        with self._locked():
            for other in self.work.parent.iterdir():
                if other != self.work and other.is_dir():
                    shutil.rmtree(other)
            self.work.mkdir(exist_ok=True)
            self._tell()
            if not (self.work / "built" / "ready").exists():
                self._build()
            publish(self.work / "built", self.folder)
        return Built(self.folder, read_manifest(self.folder), was_there=False)

    def _is_built(self, keep_older: bool) -> bool:
        with contextlib.suppress(UsageError):
            manifest = read_manifest(self.folder)
            return bool(manifest.get("key") == self.key) or (
                keep_older and is_same_set(manifest, self.described, self.inputs, self.digests)
            )
        return False

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.work.parent.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".work" / "lock").open("wb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"another build is writing {self.folder}", fix="wait for it, or end it") from None
            yield

    def _tell(self) -> None:
        for path, container in zip(self.inputs, self.containers, strict=True):
            self.watcher.note(f"{path.name}: {container}, {path.stat().st_size:,} bytes")
        if self.missing is not None:
            self.watcher.note(f"{self.missing}. The build stops after messages.")
            return
        self.watcher.note(
            f"tokenizer {self.config.tokenizer}, template {self.rendering.template.name},"
            f" context {self.config.context:,}, rows of {self.config.row_length:,}"
        )

    def _build(self) -> None:
        prepared = self._prepare()
        duplicates = self._find_duplicates(prepared)
        tokenised = self._tokenise(prepared, duplicates)
        packed = self._pack(tokenised) if self.rendering is not None else []
        self._check_law()
        self._assemble(prepared, tokenised, packed)

    # Phases

    def _map(
        self, phase: str, function: Callable[[Task], dict[str, StageCounts]], tasks: Iterable[tuple[Path, Task]],
        total: int | None = None,
    ) -> list[Path]:  # fmt: skip
        """Run what is not there yet; the folders of all shards, in order."""
        folders: list[Path] = []
        done = 0

        def missing() -> Iterator[Task]:
            nonlocal done
            for folder, task in tasks:
                folders.append(folder)
                if folder.is_dir():
                    done += 1
                else:
                    yield task

        self.watcher.began(phase, total)
        for _, counts in self.workers.ordered_map(function, missing()):
            done += 1
            self.watcher.advanced(phase, done, counts)
        for folder in folders:
            self._add(folder)
        return folders

    def _add(self, folder: Path) -> None:
        stored = orjson.loads((folder / "counts.json").read_bytes())
        self.input_counts.add(Inputs.from_json(stored.get("inputs", {})))
        for stage, counts in stored["stages"].items():
            self.counts.setdefault(stage, StageCounts()).add(StageCounts.from_json(counts))

    def _prepare(self) -> list[Path]:
        marker = self.work / "prepared.json"
        if marker.exists():
            folders = [self.work / name for name in orjson.loads(marker.read_bytes())]
            for folder in folders:
                self._add(folder)
            return folders
        names = tuple(self.names)

        def tasks() -> Iterator[tuple[Path, prepare.PrepareTask]]:
            for index, records in enumerate(_batches(self.inputs)):
                folder = self.work / f"prepare-{index:05}"
                yield folder, prepare.PrepareTask(index, folder, self.config, names, records)

        folders = self._map("prepare", prepare.prepare, tasks())
        if not folders:
            given = ", ".join(str(path) for path in self.inputs)
            raise UsageError(f"there is nothing in {given}: no records", fix="give files that hold conversations")
        with atomic_write(marker) as file:
            file.write(orjson.dumps([folder.name for folder in folders]))
        return folders

    def _find_duplicates(self, prepared: list[Path]) -> Any:
        import numpy as np

        from chaku.data.rules.dedup import find_duplicates

        path = self.work / "duplicates.npy"
        self.watcher.began("dedup", 1)
        if not path.exists():
            found = find_duplicates(
                [folder / "signatures.npy" for folder in prepared], self.config.near_duplicate_similarity
            )
            part = path.with_name(".duplicates.part.npy")
            np.save(part, found)
            part.replace(path)
        return np.load(path, mmap_mode="r")

    def _tokenise(self, prepared: list[Path], duplicates: Any) -> list[Path]:
        import numpy as np

        from chaku.data.rows.tokenise import TokeniseTask, open_ids, tokenise

        sizes = [len(open_ids(folder)) for folder in prepared]
        starts = np.cumsum([0, *sizes])

        def id_of(number: int) -> str:
            shard = int(np.searchsorted(starts, number, "right")) - 1
            return str(open_ids(prepared[shard])[number - int(starts[shard])])

        def tasks() -> Iterator[tuple[Path, TokeniseTask]]:
            for index, source in enumerate(prepared):
                decisions = np.array(duplicates[starts[index] : starts[index + 1]])
                earlier = {int(number): id_of(int(number)) for number in decisions["of"] if number >= 0}
                folder = self.work / f"tokenise-{index:05}"
                has_tokenizer = self.rendering is not None
                yield folder, TokeniseTask(index, source, folder, self.config, decisions, earlier, has_tokenizer)

        return self._map("tokenise", tokenise, tasks(), len(prepared))

    def _pack(self, tokenised: list[Path]) -> list[Path]:
        import numpy as np

        from chaku.data.rows.pack import best_fit, pairs_together, row_per_document
        from chaku.data.rows.packed import ROWS_PER_SHARD, RowsTask, write_rows
        from chaku.data.rows.tokenise import PAIR_SPLITS, PARTS

        self.counts.setdefault("pack", StageCounts())
        tasks: list[tuple[Path, RowsTask]] = []
        for part in PARTS:
            lengths = [np.load(folder / f"{part}-lengths.npy") for folder in tokenised]
            starts = np.cumsum([0, *map(len, lengths)])
            every = np.concatenate([np.zeros(0, np.int64), *lengths])
            seed = self.config.seed
            if part in PAIR_SPLITS:
                plan = pairs_together(every, self.config.row_length if self.config.pack else None, seed)
            elif self.config.pack:
                plan = best_fit(every, self.config.row_length, seed)
            else:
                plan = row_per_document(every, seed)
            for index, first in enumerate(range(0, plan.num_rows, ROWS_PER_SHARD)):
                row_starts = plan.starts[first : first + ROWS_PER_SHARD + 1]
                folder = self.work / f"pack-{part}-{index:05}"
                files = tuple(source / f"{part}.arrow" for source in tokenised)
                order = plan.order[row_starts[0] : row_starts[-1]]
                tasks.append((folder, RowsTask(index, part, folder, files, starts, order, row_starts - row_starts[0])))
        return self._map("pack", write_rows, tasks, len(tasks))

    def _check_law(self) -> None:
        """Every stage keeps the law, passes on what it kept, and packing keeps every token."""
        before: tuple[str, int] | None = None
        for stage in STAGES:
            if stage not in self.counts:
                continue
            counts = self.counts[stage]
            counts.check(stage)
            if before is not None and before[1] != counts.entered:
                raise LawBroken(f"{before[0]} kept {before[1]}, {stage} got {counts.entered}")
            before = stage, counts.kept
        if "pack" in self.counts:
            given, packed = self.counts["tokenise"].sums, self.counts["pack"].sums
            for quantity in ("tokens", "trained_tokens", "checksum"):
                if given[quantity] != packed[quantity]:
                    raise LawBroken(f"pack got {given[quantity]} {quantity} and wrote {packed[quantity]}")

    def _assemble(self, prepared: list[Path], tokenised: list[Path], packed: list[Path]) -> None:
        from chaku.data.inspect.audit import audit
        from chaku.data.inspect.report import write_page
        from chaku.data.rows.tokenise import PARTS

        self.watcher.began("audit", 1)
        built = self.work / "built"
        shutil.rmtree(built, ignore_errors=True)
        for name in ("messages", "ledger"):
            (built / name).mkdir(parents=True)
        for part in PARTS:
            join([folder / f"{part}.jsonl" for folder in tokenised], built / "messages", part)
        join([folder / "prompts.jsonl" for folder in prepared], built / "messages", "prompts")
        if self.rendering is not None:
            (built / "rows").mkdir()
            for folder in packed:
                for file in folder.glob("*.arrow"):
                    shutil.copy(file, built / "rows" / file.name)
        for number, stage in enumerate(STAGES):
            parts = [
                path for folder in (*prepared, *tokenised, *packed) if (path := folder / f"{stage}.parquet").exists()
            ]
            if stage in self.counts:
                merge(parts, built / "ledger" / f"{number + 1:02}-{stage}.parquet")
        manifest = self._manifest() | {"files": describe_files(built)}
        write_json(built / "manifest.json", manifest)
        manifest["audit"] = audit(
            built,
            questions=self.config.decontaminate,
            workers=self.workers,
            least_share=self.config.contamination_overlap,
            check_files=False,  # their hashes were taken just now
        ).to_json()
        write_json(built / "manifest.json", manifest)
        write_page(built, built / "report.html")
        (built / "ready").touch()

    def _manifest(self) -> dict[str, Any]:
        described = {key: value for key, value in self.described.items() if key != "inputs"}
        return {
            **described,
            "key": self.key,
            "inputs": describe_inputs(self.inputs, self.digests, list(self.containers), self.input_counts),
            "context": self.config.context if self.rendering is not None else None,
            "pack_length": self.config.row_length if self.rendering is not None else None,
            "counts": {stage: self.counts[stage].to_json() for stage in STAGES if stage in self.counts},
        }


def _unique_stems(paths: list[Path]) -> list[str]:
    """What ids begin with: the file's name up to its first dot; numbered where two are alike."""
    stems = [path.name.partition(".")[0] or path.name for path in paths]
    return [
        stem if stems.count(stem) == 1 else f"{stem}-{stems[: number + 1].count(stem)}"
        for number, stem in enumerate(stems)
    ]


def _batches(paths: list[Path]) -> Iterator[tuple[tuple[int, RawRecord], ...]]:
    """Records in order, cut into shards by number and size alone: the number of processes has no say."""
    batch: list[tuple[int, RawRecord]] = []
    num_bytes = 0
    for number, path in enumerate(paths):
        for record in sources.records(path):
            batch.append((number, record))
            num_bytes += len(record.data)
            if len(batch) >= _RECORDS_PER_SHARD or num_bytes >= _BYTES_PER_SHARD:
                yield tuple(batch)
                batch, num_bytes = [], 0
    if batch:
        yield tuple(batch)
