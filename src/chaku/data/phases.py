"""The phases of a build: each maps shards to folders that are whole or absent, and adds up what they counted."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import orjson

from chaku.data import prepare
from chaku.data.inputs import sources
from chaku.data.inputs.counts import Inputs
from chaku.data.inputs.json_stream import RawRecord
from chaku.data.ledger import LawBroken, StageCounts
from chaku.data.parallel import Workers
from chaku.data.recipe import DataConfig
from chaku.data.watcher import Watcher
from chaku.errors import UsageError
from chaku.records import atomic_write

STAGES = (
    *prepare.STAGES, "dedup", "split", "tokenise", "pack",
)  # fmt: skip
_RECORDS_PER_SHARD = 1000
_BYTES_PER_SHARD = 8 << 20
Task = TypeVar("Task")


class Phases:
    """The phases of one build, in the order of the methods. A shard whose folder is in `work` is not done again."""

    def __init__(
        self,
        config: DataConfig,
        names: list[str],
        work: Path,
        workers: Workers,
        watcher: Watcher,
        *,
        has_tokenizer: bool,
    ) -> None:
        """`names` are what the ids of each input's records begin with."""
        self.config = config
        self.names = tuple(names)
        self.work = work
        self.workers = workers
        self.watcher = watcher
        self.has_tokenizer = has_tokenizer
        self.counts: dict[str, StageCounts] = {}
        self.input_counts = Inputs()

    def prepare(self) -> list[Path]:
        """From files to cleaned messages and their signatures."""
        marker = self.work / "prepared.json"
        if marker.exists():
            folders = [self.work / name for name in orjson.loads(marker.read_bytes())]
            for folder in folders:
                self._add(folder)
            return folders

        def tasks() -> Iterator[tuple[Path, prepare.PrepareTask]]:
            for index, records in enumerate(_batches(self.config.inputs)):
                folder = self.work / f"prepare-{index:05}"
                yield folder, prepare.PrepareTask(index, folder, self.config, self.names, records)

        folders = self._map("prepare", prepare.prepare, tasks())
        if not folders:
            given = ", ".join(str(path) for path in self.config.inputs)
            raise UsageError(f"there is nothing in {given}: no records", fix="give files that hold conversations")
        with atomic_write(marker) as file:
            file.write(orjson.dumps([folder.name for folder in folders]))
        return folders

    def find_duplicates(self, prepared: list[Path]) -> Any:
        """What the duplicates' stage decided on each conversation of all shards: an array on disk, written once."""
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

    def tokenise(self, prepared: list[Path], duplicates: Any) -> list[Path]:
        """Split, and render to ids; without a tokenizer to messages alone."""
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
                yield folder, TokeniseTask(index, source, folder, self.config, decisions, earlier, self.has_tokenizer)

        return self._map("tokenise", tokenise, tasks(), len(prepared))

    def pack(self, tokenised: list[Path]) -> list[Path]:
        """Lay documents into rows, each of both splits by a plan over all shards."""
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

    def check_law(self) -> None:
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


def _batches(paths: Iterable[Path]) -> Iterator[tuple[tuple[int, RawRecord], ...]]:
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
