"""Adds `[PAD]` to a tokenizer's files, as the first Vicuna did to Llama's: 32000 tokens become 32001."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chaku.errors import ModelError
from chaku.models.files.modelconfig import read_object, read_optional

PAD = "[PAD]"


def extend_tokenizer(folder: Path, pad_id: int) -> bool:
    """Add `[PAD]` with the id `pad_id` to the tokenizer in `folder`; False where there is no tokenizer.

    Only JSON is touched: `tokenizer.json` where there is one, and the files that go with a SentencePiece model.
    """
    fast, slow = folder / "tokenizer.json", folder / "tokenizer.model"
    if not fast.exists() and not slow.exists():
        return False
    added = {"content": PAD, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    if fast.exists():
        tokenizer = read_object(fast)
        _check_free(fast, tokenizer, pad_id)
        tokenizer.setdefault("added_tokens", []).append({"id": pad_id, **added, "special": True})
        fast.write_text(json.dumps(tokenizer, ensure_ascii=False, indent=2) + "\n")
    if slow.exists():
        _change(folder / "added_tokens.json", {PAD: pad_id})
    _change(folder / "special_tokens_map.json", {"pad_token": PAD})
    config = read_optional(folder / "tokenizer_config.json")
    changed: dict[str, Any] = {"pad_token": PAD}
    if "added_tokens_decoder" in config:
        changed["added_tokens_decoder"] = config["added_tokens_decoder"] | {str(pad_id): {**added, "special": True}}
    _change(folder / "tokenizer_config.json", changed)
    return True


def _change(path: Path, changed: dict[str, Any]) -> None:
    values = read_optional(path) | changed
    path.write_text(json.dumps(values, ensure_ascii=False, indent=2) + "\n")


def _check_free(path: Path, tokenizer: dict[str, Any], pad_id: int) -> None:
    vocabulary = tokenizer["model"]["vocab"]
    names = (
        vocabulary if isinstance(vocabulary, dict) else {piece: number for number, (piece, _) in enumerate(vocabulary)}
    )
    taken = {**names, **{token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}}
    for token, its_id in taken.items():
        if its_id == pad_id or token == PAD:
            raise ModelError(
                f"{path} has the token {token!r} with id {its_id}; {PAD} was to become {pad_id}",
                fix="use the base that the delta was made from",
            )
