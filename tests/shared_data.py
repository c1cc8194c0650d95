"""Data that lies beside a checkout and is never part of it."""

from __future__ import annotations

from pathlib import Path

import pytest

SHARED = Path(__file__).parents[2] / "shared/data"


def shared(name: str) -> Path:
    """A folder of that data; the test is skipped where it is missing."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder}")
    return folder
