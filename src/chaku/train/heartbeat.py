"""Notices that another process of a run is gone, and ends this one.

Under nccl a lost process leaves the others waiting in C, where neither signals nor exceptions reach them. A thread of
each process counts up in the store that they met in and watches the next process's count. Under gloo the collective
itself fails first.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from chaku.errors import TrainingError

_log = logging.getLogger(__name__)

BEAT_EVERY_S = 2.0
LOST_AFTER_S = 20.0
"""Under the 30 s that torchrun gives processes between SIGTERM and SIGKILL."""
_LEAVE_WITHIN_S = 10.0
"""How long the process may take to end by itself once its collectives were aborted."""
_LOST_KEY = "chaku/lost"


@dataclass
class Heartbeat:
    """What the watch has seen. `lost` names the process that is gone."""

    lost: str | None = None
    _ended: threading.Event = field(default_factory=threading.Event)

    def check(self) -> None:
        """Raise TrainingError where a process was lost: numbers that came out of an aborted collective are none."""
        if self.lost is not None:
            raise TrainingError(self.lost, fix="start again with --resume auto: the checkpoints are intact")


@contextlib.contextmanager
def heartbeat(
    store: Any, rank: int, size: int, *, every_s: float = BEAT_EVERY_S, lost_after_s: float = LOST_AFTER_S
) -> Iterator[Heartbeat]:
    """Watch while the block runs. `store` is a torch.distributed Store; None, or one process, watches nothing."""
    beat = Heartbeat()
    if store is None or size == 1:
        yield beat
        return
    clone = store.clone()
    clone.set(f"chaku/beat/{rank}", "0")
    thread = threading.Thread(
        target=_watch, args=(beat, clone, rank, size, every_s, lost_after_s), name="heartbeat", daemon=True
    )
    thread.start()
    try:
        yield beat
    except BaseException:
        with contextlib.suppress(Exception):  # the others may hear of it sooner; the store may be gone as well
            store.set(_LOST_KEY, f"process {rank} ended with an error")
        raise
    finally:
        with contextlib.suppress(Exception):
            store.set(f"chaku/beat/{rank}", "done")
        beat._ended.set()
        thread.join(2 * every_s)


def _watch(beat: Heartbeat, store: Any, rank: int, size: int, every_s: float, lost_after_s: float) -> None:
    neighbour, count = (rank + 1) % size, 0
    last, changed = b"", time.monotonic()
    while not beat._ended.wait(every_s):
        count += 1
        try:
            store.set(f"chaku/beat/{rank}", str(count))
            seen = store.get(f"chaku/beat/{neighbour}")
            reason = store.get(_LOST_KEY).decode() if store.check([_LOST_KEY]) else None
        except Exception as error:  # whatever the store raises once its host is gone
            reason, seen = f"the store of process 0 does not answer: {str(error).splitlines()[0]}", last
        if seen != last:
            last, changed = seen, time.monotonic()
        if seen != b"done" and time.monotonic() - changed > lost_after_s:
            reason = f"process {neighbour} has given no sign for {lost_after_s:.0f} s"
            with contextlib.suppress(Exception):
                store.set(_LOST_KEY, reason)
        if reason is not None and not beat._ended.is_set():
            _end(beat, f"process {rank} lost another of the {size}: {reason}")
            return


def _end(beat: Heartbeat, reason: str) -> None:
    """Abort the collectives, and the process where that does not free it."""
    beat.lost = reason
    _log.error("%s: aborting", reason)
    threading.Thread(target=_abort, name="abort", daemon=True).start()  # it may wait for the GPU itself
    if not beat._ended.wait(_LEAVE_WITHIN_S):
        _log.error("still waiting in a collective: the process ends with exit code %d", TrainingError.exit_code)
        os._exit(TrainingError.exit_code)


def _abort() -> None:
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import _abort_process_group

    if dist.is_initialized() and dist.get_backend() != "gloo":
        with contextlib.suppress(Exception):  # a group may have failed by itself; `_end` has the last word
            _abort_process_group()
