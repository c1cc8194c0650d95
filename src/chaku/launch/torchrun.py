"""`python -m chaku.launch.torchrun ...`: torchrun's own command line, with the run's exit code instead of always 1.

A launcher can then tell a run that was asked to stop and has saved (75) from one that failed.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence
from types import FrameType

from chaku.errors import RunInterrupted

_STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_AGAIN_S = 0.02

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run torchrun and return what its first failed process returned; 75 when torchrun itself was told to stop."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    os.environ["TORCHELASTIC_SIGNALS_TO_HANDLE"] = "SIGQUIT"  # torch's handlers of the others would replace ours
    for number in _STOPS:
        signal.signal(number, _stop)
    try:
        run(parse_args(sys.argv[1:] if arguments is None else arguments))  # type: ignore[no-untyped-call]
    except ChildFailedError as failed:
        rank, first = failed.get_first_failure()
        code: int = first.exitcode
        _log.warning("process %d ended with exit code %d", rank, code)
        return 128 - code if code < 0 else code
    except SignalException as stopped:
        _log.warning("stopped by %s", stopped.sigval.name)
        return RunInterrupted.exit_code
    return 0


def _stop(number: int, frame: FrameType | None) -> None:
    """Raise torch's SignalException for a signal to stop, but never inside `subprocess`.

    `Popen.poll` holds a lock. An exception between taking and guarding it leaves it held for ever: the child is then
    never seen to end, and torchrun waits a minute in vain. There the signal is sent again a little later.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException

    while frame is not None:
        if frame.f_globals.get("__name__") == "subprocess":
            threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number)).start()
            return
        frame = frame.f_back
    name = signal.Signals(number)
    raise SignalException(f"Process {os.getpid()} got signal: {name}", sigval=name)


if __name__ == "__main__":
    sys.exit(main())
