"""What suits the model of a Hugging Face folder in a chat: the fields of its generation_config.json that we have."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chaku.errors import ModelError
from chaku.models.fetch.folders import model_folder
from chaku.models.files.modelconfig import read_optional
from chaku.models.reference import LocalFolder, parse
from chaku.models.registry import Recommended, recommended

GENERATION_CONFIG = "generation_config.json"
_OUR_NAMES = {
    "temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "repetition_penalty",
    "max_new_tokens": "max_tokens",
}  # fmt: skip


@functools.lru_cache(maxsize=256)
def recommended_here(source: str) -> Recommended | None:
    """As `registry.recommended`, and for a folder of this machine what its files say; None where that is nothing."""
    try:
        reference = parse(source).reference
        if not isinstance(reference, LocalFolder):
            return recommended(source)
        said = read_optional(model_folder(reference.path) / GENERATION_CONFIG)
    except ModelError:  # the model's own state says so
        return None
    found = {ours: said[theirs] for theirs, ours in _OUR_NAMES.items() if _is_number(said.get(theirs))}
    if said.get("do_sample") is False:  # written, which transformers does not do by itself
        found["temperature"] = 0.0
    return Recommended(**found) if found else None


def write_recommended(folder: Path, suits: Recommended, settings: Mapping[str, Any]) -> None:
    """Write a folder's generation_config.json: `settings`, and what suits the model where they say nothing of it."""
    known = suits.known()
    told: dict[str, Any] = {theirs: known[ours] for theirs, ours in _OUR_NAMES.items() if ours in known}
    if "temperature" in told:
        told["do_sample"] = told["temperature"] > 0
        if not told["do_sample"]:
            del told["temperature"]  # transformers warns of one that it does not use
    (folder / GENERATION_CONFIG).write_text(json.dumps(told | dict(settings), indent=2))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
