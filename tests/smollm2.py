"""Where the real 135M model is."""

from __future__ import annotations

import functools
import os
from pathlib import Path


@functools.cache
def gguf() -> Path:
    """CHAKU_TEST_MODEL, or the built-in model, pulled once into the user's cache."""
    if given := os.environ.get("CHAKU_TEST_MODEL"):
        return Path(given)
    from chaku.models.pull import pull
    from chaku.models.reference import parse

    return pull(parse("smollm2-135m").reference).path
