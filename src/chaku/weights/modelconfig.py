"""The few things the weights commands read and change in a model's `config.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chaku.errors import ModelError
from chaku.weights.place import DTYPES


def read_config(folder: Path) -> dict[str, Any] | None:
    """A folder's `config.json`, or None where there is none. Raises ModelError when it is not a JSON object."""
    path = folder / "config.json"
    return read_object(path) if path.exists() else None


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object. Raises ModelError naming it where it does not."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error})", fix="check the file") from error
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object", fix="check the file")
    return content


def write_config(folder: Path, config: dict[str, Any]) -> None:
    """Write `config.json` the way transformers does."""
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def write_dtype(folder: Path, dtype: str) -> None:
    """Name `dtype` in a folder's config, under the key it has (`torch_dtype` in older ones)."""
    config = read_config(folder)
    if config is not None:
        key = "torch_dtype" if "torch_dtype" in config and "dtype" not in config else "dtype"
        write_config(folder, config | {key: DTYPES[dtype][0]})
