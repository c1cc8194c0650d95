"""Whether a set that was built is the one that a configuration asks for, whichever chaku built it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from chaku.data.recipe import DataConfig


def settings_of(config: DataConfig) -> dict[str, Any]:
    """What of a configuration decides the bytes of a set, besides the files that it names."""
    moderation = config.moderation
    return config.model_dump(mode="json", exclude={"inputs", "decontaminate", "moderation"}) | {
        "moderation": moderation and moderation.model_dump(mode="json", exclude={"concurrency", "timeout_s"})
    }


def is_same_set(
    manifest: Mapping[str, Any], wanted: Mapping[str, Any], inputs: Sequence[Path], digests: Sequence[str]
) -> bool:
    """Whether a set's manifest has these inputs (files and their sha256) and what `wanted` says of the rest.

    Settings that came since the set was built count as their defaults. The version of chaku has no say; a template or
    tokenizer that has changed since has another hash.
    """
    try:
        config = {key: value for key, value in manifest["config"].items() if key in DataConfig.model_fields}
        settings = settings_of(DataConfig.model_validate(config))
        found = [(entry["name"], entry["sha256"]) for entry in manifest["inputs"]]
        is_like = all(manifest[key] == wanted[key] for key in ("name", "decontaminate", "tokenizer", "template"))
    except (KeyError, TypeError, ValueError):
        return False
    named = [(path.name, digest) for path, digest in zip(inputs, digests, strict=True)]
    return is_like and settings == wanted["config"] and found == named
