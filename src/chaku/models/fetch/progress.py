"""How a long fetch tells what it is doing; drawing it is the command line's affair."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

Phase = Literal["wait", "download", "unpack", "verify", "convert"]
"""wait: another process fetches the same model. unpack: out of a wheel. verify: computing a sha256. convert: writing
it in another format."""

DESCRIPTIONS: dict[Phase, str] = {
    "wait": "waiting for another process that pulls it",
    "download": "downloading",
    "unpack": "unpacking",
    "verify": "checking the sha256",
    "convert": "converting",
}
"""The phases in words."""

Progress: TypeAlias = Callable[[Phase, int, int | None], None]
"""Called with phase, bytes done and bytes in all (None: unknown), often; must be quick.

What it raises ends the fetch and its child processes, and leaves no file that looks whole."""


def silent(_phase: Phase, _done_bytes: int, _total_bytes: int | None) -> None:
    """Progress for nobody."""
