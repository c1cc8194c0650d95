"""What must agree before a delta is made or applied, and what a delta records about its making."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from chaku.errors import ModelError
from chaku.weights.place import TensorMetadata
from chaku.weights.tensors import Tensors

RECORD_NAME = "chaku_delta.json"
_VERSION = 1
# Rows of these are tokens: a longer vocabulary than the base's is zeros there.
_BY_TOKEN = ("embed_tokens.weight", "lm_head.weight")
# Made from the config. Old checkpoints and published deltas store it, transformers no longer does.
DERIVED = ".rotary_emb.inv_freq"
_CONVERT = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


@dataclass(frozen=True)
class Pair:
    """A tensor that base and target (or delta) both have, as the target has it."""

    name: str
    metadata: TensorMetadata
    num_added_rows: int


@dataclass(frozen=True)
class DeltaRecord:
    """`chaku_delta.json`: the sha256 of every tensor's bytes in the base, and in what applying the delta gives."""

    format: Literal["xor", "difference"]
    base: dict[str, str]
    result: dict[str, str]

    def write(self, folder: Path) -> None:
        """Write it into a delta's folder."""
        record = {"version": _VERSION, "format": self.format, "base_sha256": self.base, "result_sha256": self.result}
        (folder / RECORD_NAME).write_text(json.dumps(record, indent=1) + "\n")

    def check_names(self, names: list[str]) -> None:
        """Raise ModelError unless the record is about these tensors."""
        if odd := set(names) ^ self.base.keys() | set(names) ^ self.result.keys():
            raise ModelError(f"{RECORD_NAME} and the delta's files disagree about {min(odd)}", fix="fetch it again")


def read_record(delta: Path) -> DeltaRecord | None:
    """What a delta says about itself; None for a plain difference as others publish it."""
    path = (delta if delta.is_dir() else delta.parent) / RECORD_NAME
    if not path.exists():
        return None
    try:
        values = json.loads(path.read_bytes())
        version, record = (
            values["version"],
            DeltaRecord(values["format"], values["base_sha256"], values["result_sha256"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is not a record of a delta ({error!r})", fix="fetch the delta again") from error
    if version != _VERSION or record.format not in ("xor", "difference"):
        raise ModelError(f"{path} is of version {version!r}, format {record.format!r}", fix="use a newer chaku")
    return record


def check_is_model(*folders: Path) -> None:
    """Raise ModelError where a delta was given in a model's place."""
    for folder in folders:
        if (folder / RECORD_NAME).exists():
            raise ModelError(f"{folder} is a delta, not a model", fix="apply it to its base: chaku weights apply-delta")


def pair_up(bases: Tensors, others: Tensors, what: str) -> list[Pair]:
    """Every tensor of `others` with its counterpart in `bases`. `what` names `others` in errors.

    Raises ModelError naming the first tensor that is missing on one side or differs in shape or dtype. Tied tensors
    that only one side stores, and constants that are made from the config, are left out.
    """
    missing = [*_only_in(others, bases), *_only_in(bases, others)]
    if missing:
        where = f"the base {bases.path}" if missing[0] in others else f"the {what} {others.path}"
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise ModelError(f"{missing[0]}{more} is not in {where}", fix="both must be of the same architecture and size")
    names = [name for name in others.names if name in bases and not name.endswith(DERIVED)]
    return [_pair(name, bases.metadata(name), others.metadata(name), bases.path, what) for name in names]


def _only_in(first: Tensors, second: Tensors) -> Iterable[str]:
    return [
        name
        for name in first.names
        if name not in second and not name.endswith(DERIVED) and not any(tie in second for tie in first.aliases(name))
    ]


def _pair(name: str, base: TensorMetadata, other: TensorMetadata, base_path: Path, what: str) -> Pair:
    if base.dtype != other.dtype:
        fix = "both must have one dtype"
        if other.dtype in _CONVERT:
            fix += f": chaku weights convert {base_path} --dtype {_CONVERT[other.dtype]} -o CONVERTED"
        raise ModelError(f"{name} is {base.dtype} in the base and {other.dtype} in the {what}", fix=fix)
    if base.shape == other.shape:
        return Pair(name, other, 0)
    by_token = name.endswith(_BY_TOKEN) and base.shape[1:] == other.shape[1:]
    if by_token and other.shape[0] > base.shape[0]:
        return Pair(name, other, other.shape[0] - base.shape[0])
    hint = "the base's vocabulary is longer than the target's: is it the right base?" if by_token else None
    raise ModelError(
        f"{name} is {list(base.shape)} in the base and {list(other.shape)} in the {what}",
        fix=hint or "both must be of the same architecture and size",
    )
