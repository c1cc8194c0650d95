from __future__ import annotations

from train.conftest import base, small_set

__all__ = ["base", "small_set"]
