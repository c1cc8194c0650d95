"""Checkpoints that are whole or absent: written under another name, then a manifest with hashes, then a rename.

A run resumes from the newest valid one; those passed over are renamed, and named with the reason. Every process writes
its shards to the same folder, so processes on several hosts need a shared one.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as load_state
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.checkpoint.state_dict_saver import save as save_state

from chaku.errors import TrainingError
from chaku.records import change_of, put_folder, sync
from chaku.train.hashing_writer import HashingWriter
from chaku.train.parallel import LOADING_TIMEOUT, World

FORMAT = 1
_NAME = re.compile(r"step-(\d+)")
_INVALID = "invalid-"
_OPTIONS = StateDictOptions(ignore_frozen_params=True)


@dataclass(frozen=True)
class Checkpoint:
    """One that was found whole. `step` is the number of steps done."""

    folder: Path
    step: int
    heldout_loss: float | None


class Invalid(Exception):
    """Why a checkpoint is passed over."""


def check(folder: Path) -> Checkpoint:
    """Read a checkpoint's manifest and hold every file against it. Raises Invalid with the reason."""
    checkpoint, files = _read(folder)
    for name, described in files.items():
        if change := change_of(folder / name, described):
            raise Invalid(f"{name} {change}")
    return checkpoint


def check_together(folder: Path, world: World) -> Checkpoint:
    """As `check`, on all processes at once, each of which hashes a share of the files. The same outcome on all."""
    reason, checkpoint = None, None
    try:
        checkpoint, files = _read(folder)
        for name in sorted(files)[world.rank :: world.size]:
            if change := change_of(folder / name, files[name]):
                reason = f"{name} {change}"
                break
    except Invalid as invalid:
        reason = str(invalid)
    reasons = [reason for reason in world.all_gather(reason) if reason is not None]
    if reasons or checkpoint is None:
        raise Invalid(reasons[0])
    return checkpoint


def _read(folder: Path) -> tuple[Checkpoint, dict[str, Any]]:
    """A checkpoint as its manifest describes it, and its files."""
    try:
        manifest = orjson.loads((folder / "manifest.json").read_bytes())
        files, step, loss = manifest["files"], manifest["step"], manifest["heldout_loss"]
    except FileNotFoundError:
        raise Invalid("it has no manifest") from None
    except (OSError, orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise Invalid(f"its manifest can't be read: {error}") from None
    return Checkpoint(folder, step, loss), files


def newest_in(folder: Path) -> tuple[Checkpoint | None, list[tuple[str, str]]]:
    """The newest valid checkpoint in a folder of them, and those newer ones that are not, with the reason."""
    skipped: list[tuple[str, str]] = []
    for path in _folders(folder):
        try:
            return check(path), skipped
        except Invalid as reason:
            skipped.append((path.name, str(reason)))
    return None, skipped


def _folders(folder: Path) -> list[Path]:
    found = [path for path in folder.glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")), reverse=True)


@dataclass
class Checkpoints:
    """The checkpoints of one run."""

    folder: Path
    world: World
    keep_last: int = 2
    keep_best: bool = False
    in_background: bool = True
    _writer: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "checkpoint"))
    _pending: Future[None] | None = None
    _group: Any = None

    def __post_init__(self) -> None:
        expect_one_process()
        if self.in_background and self.world.size > 1:
            self._group = dist.new_group(backend="gloo", timeout=LOADING_TIMEOUT)

    def newest(self) -> tuple[Checkpoint | None, list[tuple[str, str]]]:
        """The newest valid checkpoint, and those newer ones that are not, with the reason. All processes look together.

        Those that are passed over are renamed, so that they never count for keeping again.
        """
        skipped: list[tuple[str, str]] = []
        found = None
        for name in self.world.broadcast([path.name for path in _folders(self.folder)]):
            try:
                found = check_together(self.folder / name, self.world)
                break
            except Invalid as reason:
                skipped.append((name, str(reason)))
        if self.world.is_rank_zero:
            for name, _ in skipped:
                self._set_aside(name)
        self.world.barrier()
        return found, skipped

    def _set_aside(self, name: str) -> None:
        target = self.folder / f"{_INVALID}{name}"
        if target.exists():
            shutil.rmtree(target)
        (self.folder / name).replace(target)

    def save(self, step: int, model: nn.Module, optimiser: torch.optim.Optimizer, heldout_loss: float | None) -> None:
        """Write a checkpoint; in the background, once the state is copied. Raises TrainingError as `finish` does."""
        self.finish()
        part = self.folder / f".step-{step}.part"
        if self.world.is_rank_zero:
            for left in self.folder.glob(".step-*.part"):
                shutil.rmtree(left)
            part.mkdir(parents=True)
        self.world.barrier()
        state = _state(model, optimiser)
        written: Future[Any] | None = None
        writer = HashingWriter(part)
        with self._explained(step):
            if self.in_background:
                started = async_save(
                    state, storage_writer=writer, process_group=self._group, no_dist=self.world.size == 1
                )
                written = started if isinstance(started, Future) else started.upload_completion
            else:
                save_state(state, storage_writer=writer, no_dist=self.world.size == 1)
        self._pending = self._writer.submit(self._publish, part, step, heldout_loss, writer, written)
        if not self.in_background:
            self.finish()

    def _publish(
        self, part: Path, step: int, heldout_loss: float | None, writer: HashingWriter, written: Future[Any] | None
    ) -> None:  # fmt: skip
        if written is not None:
            written.result()
        if not self.world.is_rank_zero:
            return
        if missing := _missing(part):
            raise OSError(f"{missing[0]} is not in {part}: do all processes see the same disk?")
        files = dict(sorted(writer.described.items()))
        manifest = {
            "format": FORMAT, "step": step, "heldout_loss": heldout_loss, "processes": self.world.size, "files": files,
        }  # fmt: skip
        with (part / "manifest.json").open("wb") as file:
            file.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2))
        sync(part / "manifest.json")
        sync(part)
        put_folder(part, self.folder / f"step-{step}")
        self._prune()

    def _prune(self) -> None:
        """Delete all but the last few, and the best where that is kept. Those set aside or unreadable never count."""
        valid: list[Checkpoint] = []
        for folder in _folders(self.folder):
            try:
                manifest = orjson.loads((folder / "manifest.json").read_bytes())
                valid.append(Checkpoint(folder, manifest["step"], manifest["heldout_loss"]))
            except (OSError, ValueError, KeyError):
                continue
        kept = {checkpoint.folder for checkpoint in valid[: self.keep_last]}
        measured = [
            (checkpoint.heldout_loss, checkpoint.step, checkpoint.folder)
            for checkpoint in valid
            if checkpoint.heldout_loss is not None
        ]
        if self.keep_best and measured:
            kept.add(min(measured)[2])
        for checkpoint in valid:
            if checkpoint.folder not in kept:
                shutil.rmtree(checkpoint.folder)

    def finish(self, *, wait: bool = True) -> None:
        """See how the last save ended. Raises TrainingError when it failed; the one before is untouched."""
        if self._pending is not None and (wait or self._pending.done()):
            pending, self._pending = self._pending, None
            with self._explained(None):
                pending.result()
        if wait:
            self.world.barrier()

    @contextmanager
    def _explained(self, step: int | None) -> Iterator[None]:
        try:
            yield
        except (OSError, CheckpointException, RuntimeError) as error:
            cause = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            which = "a checkpoint" if step is None else f"the checkpoint of step {step}"
            free = shutil.disk_usage(self.folder).free / 1e9
            raise TrainingError(
                f"{which} could not be written: {cause} ({free:.1f} GB are free in {self.folder})",
                fix="make room or repair the disk, then --resume auto: the last good checkpoint is there",
            ) from error

    def close(self) -> None:
        """End the thread. What is being written is finished, and its failure left to whoever closes."""
        self._writer.shutdown(wait=True)


def _missing(folder: Path) -> list[str]:
    """Files that the processes say they wrote, and that are not to be seen from here."""
    written = FileSystemReader(folder).read_metadata().storage_data.values()
    return sorted({entry.relative_path for entry in written} - {path.name for path in folder.iterdir()})


def load(checkpoint: Checkpoint, model: nn.Module, optimiser: torch.optim.Optimizer, world: World) -> None:
    """Put a checkpoint's state into model and optimiser, whatever number of processes wrote it."""
    state = _state(model, optimiser)
    load_state(state, checkpoint_id=checkpoint.folder, no_dist=world.size == 1)
    set_state_dict(
            model, optimiser, model_state_dict=state["model"], optim_state_dict=state["optimiser"],
            options=StateDictOptions(ignore_frozen_params=True, strict=False),
        )  # fmt: skip


def _state(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    weights, moments = get_state_dict(model, optimiser, options=_OPTIONS)
    return {"model": weights, "optimiser": moments}


def expect_one_process() -> None:
    """DCP warns, in its thread too, when there is one process; that is what was asked for."""
    warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)


def check_room(folder: Path, model: nn.Module, keep_last: int, keep_best: bool) -> int:
    """Most bytes that checkpoints and the final weights will take. Raises TrainingError when the disk has less.

    A checkpoint holds what learns and two moments of it in fp32; one more than is kept exists while it is written.
    """
    learning = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    needed = (keep_last + keep_best + 1) * learning * 12 + learning * 4
    folder.mkdir(parents=True, exist_ok=True)
    needed -= min(needed, sum(path.stat().st_size for path in folder.glob("checkpoints/*/*")))  # there already
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise TrainingError(
            f"checkpoints may take {needed / 1e9:.1f} GB in {folder}, {free / 1e9:.1f} GB are free",
            fix="make room, or lower train.keep_last",
        )
    return needed
