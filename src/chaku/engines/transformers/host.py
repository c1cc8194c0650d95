"""The child that holds the models, configured by one JSON line on standard input.

It prints {"address": URL, ...} when every model has generated a token, or {"error": ..., "kind": ...}; then it serves
until its parent goes or ends it.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys

from chaku.engines.process import Lifeline
from chaku.errors import ChakuError


def main() -> int:
    """Serve until told to end; 1 where the model can't be loaded, 3 where a package is missing."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal is the parent's business
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s")
    lifeline = Lifeline()
    try:
        from chaku.engines.transformers.server import serve

        asyncio.run(serve(lifeline.config, lifeline.say))
    except ImportError as error:
        lifeline.say({"error": str(error), "kind": "missing"})
        return 3
    except ChakuError as error:
        lifeline.say({"error": str(error), "kind": "load"})
    except Exception as error:  # whatever transformers raised; the parent makes a sentence of it
        lifeline.say({"error": f"{type(error).__name__}: {error}", "kind": "load"})
    return 1


if __name__ == "__main__":
    sys.exit(main())
