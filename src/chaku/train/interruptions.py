"""What ends a run early, in words: a request to stop, a full GPU, a process that was lost, too few micro-batches."""

from __future__ import annotations

import contextlib
import math
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from chaku.errors import TrainingError, UsageError
from chaku.train.config import TrainConfig
from chaku.train.parallel import World

_LOST = ("Connection closed by peer", "Connection reset by peer", "Timed out", "timed out", "NCCL", "Broken pipe")


def check_shares(config: TrainConfig, world: World) -> None:
    """Raises UsageError where a step has fewer micro-batches than there are processes: some would never learn."""
    num_micro_batches = math.ceil(config.batch_rows / config.micro_rows)
    if num_micro_batches >= world.size:
        return
    fix = f"start {num_micro_batches} processes"
    if config.batch_rows >= world.size:
        fix = f"say micro_rows: {config.batch_rows // world.size}, or {fix}"
    raise UsageError(
        f"batch_rows {config.batch_rows} in micro_rows {config.micro_rows} are {num_micro_batches} micro-batches for"
        f" {world.size} processes",
        fix=fix, param="train.micro_rows",
    )  # fmt: skip


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Callable[[], bool]]:
    """SIGTERM and SIGINT ask for a stop after the micro-batch that runs, on whichever process they arrive.

    A second SIGINT ends at once.
    """
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def heard(number: int, _frame: object) -> None:
        asked.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in before:
        signal.signal(number, heard)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def explained(world: World, config: TrainConfig, folder: Path) -> Iterator[None]:
    """Turn what torch raises for a full GPU or a lost process into a TrainingError."""
    started = time.monotonic()
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"the GPU's memory is full: {str(error).splitlines()[0]}", fix=_less_memory(config)
        ) from error
    except RuntimeError as error:
        if world.size == 1 or not any(sign in str(error) for sign in _LOST):
            raise
        raise TrainingError(
            f"process {world.rank} lost another of the {world.size} after {time.monotonic() - started:.0f} s:"
            f" {str(error).strip().splitlines()[0]}",
            fix=f"start again with --resume auto: the checkpoints in {folder / 'checkpoints'} are intact",
        ) from error


def _less_memory(config: TrainConfig) -> str:
    """The first of the usual savings that a run has not made yet."""
    if config.micro_rows > 1:
        return f"lower micro_rows: it is {config.micro_rows}, and batch_rows stays as it is"
    if config.activation_checkpointing != "full":
        return "say activation_checkpointing: full; micro_rows is 1 already"
    return "say method: lora or qlora, build the set with a shorter context, or take more GPUs"
