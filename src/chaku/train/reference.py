"""What the model says of every answer before preference training: log probabilities, computed once and kept on disk.

The reference is the model that the run starts from: base, parent run, or for a new LoRA the base without adapters.
A cache is keyed by everything that decides the numbers. It is written in parts, so that a killed run resumes.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import torch
from numpy.typing import NDArray

from chaku.config import cache_dir
from chaku.data.rows.packed import Row
from chaku.records import atomic_path, sha256_file
from chaku.train.batches import PairRow, micro_batch
from chaku.train.model import Trainee
from chaku.train.objective import document_sums
from chaku.train.parallel import World
from chaku.train.plan import Plan
from chaku.train.rows import RowSource

_ROWS_PER_PART = 256
FORMAT = 1


@dataclass(frozen=True)
class PairRows:
    """Rows of pairs with what the reference says of them."""

    rows: RowSource
    log_probs: NDArray[np.float64]
    """Of all documents of all rows, in order."""
    starts: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> PairRow:
        reference = self.log_probs[self.starts[number] : self.starts[number + 1]]
        return PairRow(**vars(self.rows[number]), reference=reference)


def with_reference(
    plan: Plan, trainee: Trainee, world: World, length: int | None, origin: str | None, start: Callable[[], None],
    note: Callable[[str], None],
) -> tuple[PairRows, PairRows]:  # fmt: skip
    """Training and held-out rows with the reference's log probabilities, from the cache or computed now.

    `start` puts the weights that the run starts from into the trainee; it is called only where something is missing.
    `origin` is the sha256 of a parent's weights. All processes call this together.
    """
    parts = {"train": plan.rows, "test": plan.heldout}
    folders = world.broadcast(_folders(plan, world, origin) if world.is_rank_zero else None)
    is_missing = world.broadcast(any(not (folders[part] / "whole.npy").exists() for part in parts))
    found: list[PairRows] = []
    if is_missing:
        start()
    for part, rows in parts.items():
        if is_missing:
            _compute(folders[part], rows, plan, trainee, world, length, note)
        log_probs = world.broadcast(np.load(folders[part] / "whole.npy") if world.is_rank_zero else None)
        sizes = [int(rows[number].doc_ids[-1]) + 1 for number in range(len(rows))]
        starts = np.cumsum([0, *sizes])
        assert starts[-1] == len(log_probs), f"{folders[part]} holds another set's numbers"
        found.append(PairRows(rows, log_probs, starts))
    return found[0], found[1]


def _folders(plan: Plan, world: World, origin: str | None) -> dict[str, Path]:
    """Where the cache of each part lies: a name that stands for rows, weights, template and arithmetic."""
    base, config = plan.base, plan.config
    weights = base.sha256 or base.revision or (None if base.path is None else _sha256_of_weights(base.path))
    described = {
        "format": FORMAT, "weights": weights, "origin": origin, "template": plan.set_manifest["template"]["hash"],
        "precision": config.precision, "rope_scaling": config.rope_scaling, "device": world.device.type,
        "is_quantised": config.method == "qlora",
    }  # fmt: skip
    folders = {}
    for part, rows in (("train", plan.rows), ("test", plan.heldout)):
        files = [[path.name, sha256_file(path)] for path in rows.paths]
        key = hashlib.sha256(orjson.dumps(described | {"rows": files}, option=orjson.OPT_SORT_KEYS)).hexdigest()
        folders[part] = cache_dir() / "reference" / key[:32]
    return folders


def _sha256_of_weights(folder: Path) -> str:
    if folder.is_file():
        return sha256_file(folder)
    digest = hashlib.sha256()
    for file in sorted(path for pattern in ("*.safetensors", "*.bin", "config.json") for path in folder.glob(pattern)):
        digest.update(f"{file.name} {sha256_file(file)}\n".encode())
    return digest.hexdigest()


def _compute(
    folder: Path, rows: RowSource, plan: Plan, trainee: Trainee, world: World, length: int | None,
    note: Callable[[str], None],
) -> None:  # fmt: skip
    """Fill one folder of the cache, part by part; parts that are there stay."""
    num_parts = math.ceil(len(rows) / _ROWS_PER_PART)
    paths = [folder / f"part-{index:05}.npy" for index in range(num_parts)]
    missing = world.broadcast([index for index, path in enumerate(paths) if not path.exists()])
    with asked(trainee, without_adapters=plan.config.continue_from is None):
        for index in missing:
            first = index * _ROWS_PER_PART
            numbers = range(first, min(first + _ROWS_PER_PART, len(rows)))
            some = log_probs_of([rows[number] for number in numbers], plan.config.micro_rows, trainee, world, length)
            if world.is_rank_zero:
                _save(paths[index], some)
            note(f"reference log probabilities: {numbers[-1] + 1:,} of {len(rows):,} rows")
    if world.is_rank_zero:
        _save(folder / "whole.npy", np.concatenate([np.zeros(0), *(np.load(path) for path in paths)]))
    world.barrier()


@contextlib.contextmanager
def asked(trainee: Trainee, *, without_adapters: bool) -> Iterator[None]:
    """Inside the block the trainee gives each document's log probability, without dropout and, if asked, adapters."""
    objective, trainee.objective = trainee.objective, document_sums
    has_adapters = trainee.adapters is not None and without_adapters
    adapters: Any = trainee.adapters.disable_adapter() if has_adapters else contextlib.nullcontext()
    trainee.eval()
    try:
        with adapters, torch.no_grad():
            yield
    finally:
        trainee.objective = objective
        trainee.train()


def log_probs_of(
    rows: list[Row], micro_rows: int, trainee: Trainee, world: World, length: int | None
) -> NDArray[np.float64]:
    """Of all documents of the rows, in order. Processes share the work and all get the result."""
    cuts = [rows[at : at + micro_rows] for at in range(0, len(rows), micro_rows)]
    mine: list[NDArray[np.float64]] = []
    for turn in range(math.ceil(len(cuts) / world.size)):  # all run as often; who has nothing left repeats the last
        cut = cuts[min(turn * world.size + world.rank, len(cuts) - 1)]
        batch = micro_batch(cut, length, micro_rows if length else None)
        _, found = trainee.summed_loss(batch.to(world.device))
        mine.append(found["documents"].double().cpu().numpy())
    gathered = world.all_gather(mine)
    in_order = [gathered[index % world.size][index // world.size] for index in range(len(cuts))]
    return np.concatenate([np.zeros(0), *in_order])


def _save(path: Path, values: NDArray[np.float64]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as part, part.open("wb") as file:
        np.save(file, values)
