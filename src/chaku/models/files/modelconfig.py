"""A model's config.json, an adapter's, and the other small JSON files of their folders: read and written here only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaku.errors import ModelError

CONFIG = "config.json"
ADAPTER_CONFIG = "adapter_config.json"


def read_object(path: Path) -> dict[str, Any]:
    """A file that holds one JSON object. Raises ModelError naming it where it does not."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"can't read {path}: {error.strerror}", fix="check the path") from None
    except ValueError as error:
        raise ModelError(f"{path} is not JSON ({error})", fix="check the file, or fetch it again") from None
    if not isinstance(content, dict):
        raise ModelError(f"{path} is not a JSON object", fix="check the file, or fetch it again")
    return content


def read_optional(path: Path) -> dict[str, Any]:
    """As `read_object`; an empty one where there is no such file."""
    return read_object(path) if path.is_file() else {}


def read_config(folder: Path) -> dict[str, Any] | None:
    """A folder's config.json, or None where there is none. Raises ModelError when it is not a JSON object."""
    return read_object(folder / CONFIG) if (folder / CONFIG).exists() else None


def require_config(path: Path) -> dict[str, Any]:
    """The config.json in the folder `path`, or the file `path`. Raises ModelError where it is missing."""
    file = path / CONFIG if path.is_dir() else path
    if not file.is_file():
        raise ModelError(f"there is no {file}", fix="give a folder as transformers saves models, or its config.json")
    return read_object(file)


def read_adapter_config(folder: Path) -> dict[str, Any]:
    """The adapter_config.json in a peft adapter's folder. Raises ModelError for a folder that is none."""
    try:
        return read_object(folder / ADAPTER_CONFIG)
    except ModelError as error:
        raise ModelError(
            f"{folder} is not a peft adapter: {error.message}", fix=f"give the folder with {ADAPTER_CONFIG}"
        ) from None


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write config.json the way transformers does."""
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def count(config: Mapping[str, Any], key: str, file: Path, default: int | None = None) -> int:
    """A positive number in a config. Raises ModelError naming file and key where it is missing or wrong."""
    value = config.get(key)
    if value is None and default is not None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < 1 << 32:
        problem = f"has no {key}" if value is None else f"says {key} is {value!r}"
        raise ModelError(f"{file} {problem}", fix="give the config.json of a causal language model")
    return value


@dataclass(frozen=True)
class Dimensions:
    """The sizes that a decoder's config.json gives."""

    num_layers: int
    width: int
    heads: int
    kv_heads: int
    head_length: int
    feed_forward: int
    context: int | None
    """The trained one; None: not said."""
    ties_embeddings: bool
    """Whether output and input embeddings are one matrix. (transformers' default for the families here is no.)"""


def dimensions(config: Mapping[str, Any], file: Path) -> Dimensions:
    """The sizes in a parsed config.json, of which `file` is the name in errors. Raises ModelError naming the key."""
    heads = count(config, "num_attention_heads", file)
    width = count(config, "hidden_size", file)
    return Dimensions(
        num_layers=count(config, "num_hidden_layers", file),
        width=width,
        heads=heads,
        kv_heads=count(config, "num_key_value_heads", file, heads),
        head_length=count(config, "head_dim", file, width // heads),
        feed_forward=count(config, "intermediate_size", file),
        # Vicuna v1.5-16k keeps the unscaled length in max_position_embeddings and the real one beside it.
        context=count(config, "max_sequence_length", file, count(config, "max_position_embeddings", file, 0)) or None,
        ties_embeddings=config.get("tie_word_embeddings") is True,
    )
