"""What this machine has to compute with, as far as it shows without loading anything."""

from __future__ import annotations

from pathlib import Path

_SIGNS = {"nvidiactl": "an NVIDIA GPU", "kfd": "an AMD GPU", "dxg": "a GPU in WSL"}


def gpu(dev: Path = Path("/dev")) -> str | None:
    """The GPU whose driver shows itself under /dev, in words; None where there is none, as on macOS."""
    return next((words for sign, words in _SIGNS.items() if (dev / sign).exists()), None)
