"""`python -m chaku.launch.torchrun ...`: torchrun's own command line, with the run's exit code instead of always 1.

A launcher can then tell a run that was asked to stop and has saved (75) from one that failed.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from chaku.errors import RunInterrupted

_log = logging.getLogger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run torchrun and return what its first failed process returned; 75 when torchrun itself was told to stop."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

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


if __name__ == "__main__":
    sys.exit(main())
