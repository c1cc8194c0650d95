"""What a .safetensors file says of its tensors, without reading them. https://github.com/huggingface/safetensors#format"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaku.errors import ModelError

_LIMIT_BYTES = 100_000_000  # what safetensors itself reads at most


@dataclass(frozen=True)
class Header:
    """Entries by tensor: `dtype`, `shape`, `data_offsets` from `start` on."""

    entries: dict[str, Any]
    notes: dict[str, str]
    """Its `__metadata__`."""
    start: int


def read_header(path: Path) -> Header:
    """Read 8 bytes of length and so much JSON. Raises ModelError for what is no such file; entries are not checked."""
    try:
        file_bytes = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if not 2 <= length <= min(_LIMIT_BYTES, file_bytes - 8):
                raise ModelError(f"{path} is not a safetensors file, or is cut off", fix="fetch the file again")
            entries = json.loads(file.read(length))
        if not isinstance(entries, dict):
            raise ValueError("it is not a JSON object")
    except OSError as error:
        raise ModelError(f"can't read {path}: {error.strerror}", fix="check the file") from None
    except ValueError as error:
        raise ModelError(f"{path} has no readable safetensors header ({error})", fix="fetch the file again") from error
    notes = entries.pop("__metadata__", None) or {}
    return Header(entries, notes, 8 + length)
