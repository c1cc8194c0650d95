"""What turns a base model into a target, so that a target can be passed on without its base.

A delta of ours is the XOR of the bit patterns, which is exact by definition. A plain difference, the form in which
deltas were published, rounds: it is written on demand, and read. A delta is a folder like a model's, with the target's
config and tokenizer; `chaku_delta.json` in it says what it was made from. Without that file it is a plain difference.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from chaku.errors import ModelError
from chaku.models.files.modelconfig import read_config, write_config
from chaku.weights.delta_check import DeltaRecord, Pair, check_is_model, pair_up, read_record
from chaku.weights.folder import MODEL_FILES, TOKENIZER_FILES, check_output, copy_side_files, new_folder
from chaku.weights.padding import extend_tokenizer
from chaku.weights.place import FLOATS
from chaku.weights.shards import SHARD_BYTES, Watch, byte_pieces, write_tensors
from chaku.weights.tensors import Tensors, open_tensors

if TYPE_CHECKING:
    import torch

Format = Literal["xor", "difference"]
_PIECE_VALUES = 1 << 18
_SUBTRACTED = (*FLOATS, "F64", "I64", "I32", "I16", "I8", "U8")


@dataclass(frozen=True)
class MadeDelta:
    """What `make_delta` wrote. `num_inexact` values of a difference do not come back bit for bit."""

    format: Format
    num_tensors: int
    num_values: int
    num_inexact: int
    num_added_rows: int


@dataclass(frozen=True)
class AppliedDelta:
    """What `apply_delta` wrote; `is_verified` where every tensor has the hash the delta recorded."""

    format: Format
    num_tensors: int
    is_verified: bool
    num_added_rows: int


def make_delta(
    base: Path,
    target: Path,
    output: Path,
    *,
    format: Format = "xor",
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> MadeDelta:
    """Write what turns `base` into `target` into the new folder `output`, two tensors in memory at a time.

    The target's vocabulary may be longer than the base's: the base's embedding and output rows then count as zeros.
    Raises ModelError when names, shapes or dtypes don't agree, before anything is written.
    """
    check_output(output, overwrite=overwrite)
    check_is_model(base, target)
    bases, targets = open_tensors(base), open_tensors(target)
    pairs = {pair.name: pair for pair in pair_up(bases, targets, "target")}
    if format == "difference":
        _check_subtracts(pairs)
    record = DeltaRecord(format, {}, {})
    num_inexact = 0

    def delta_of(name: str) -> torch.Tensor:
        nonlocal num_inexact
        values, before = targets.load(name), bases.load(name)
        record.base[name] = tensor_hash(before)
        if format == "xor":
            record.result[name] = tensor_hash(values)
            _xor(values, before)
        else:
            num_inexact += _subtract(values, before, digest := hashlib.sha256())
            record.result[name] = digest.hexdigest()
        return values

    with new_folder(output, overwrite=overwrite) as folder:
        planned = {name: pair.metadata for name, pair in pairs.items()}
        write_tensors(folder, planned, delta_of, shard_bytes=shard_bytes, notes={"chaku_delta": format}, watch=watch)
        record.write(folder)
        copy_side_files(target, folder, names=MODEL_FILES)
    num_values = sum(metadata.num_values for metadata in planned.values())
    return MadeDelta(format, len(pairs), num_values, num_inexact, _num_added_rows(pairs))


def apply_delta(
    base: Path,
    delta: Path,
    output: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    watch: Watch | None = None,
    watch_check: Watch | None = None,
) -> AppliedDelta:
    """Write the target that `delta` makes of `base` into the new folder `output`, two tensors in memory at a time.

    Config and tokenizer are the delta's, else the base's (with `[PAD]` added where the delta adds one row). Raises
    ModelError naming the first tensor that differs from what the delta was made from, before anything is written.
    """
    check_output(output, overwrite=overwrite)
    check_is_model(base)
    record = read_record(delta)
    bases, deltas = open_tensors(base), open_tensors(delta)
    if record is None and "chaku_delta" in deltas.notes:
        raise ModelError(f"{delta} lacks its chaku_delta.json", fix="copy the whole folder again")
    pairs = {pair.name: pair for pair in pair_up(bases, deltas, "delta")}
    format: Format = record.format if record else "difference"
    if format == "difference":
        _check_subtracts(pairs)
    if record:
        _check_base(record, bases, pairs, watch_check)

    def target_of(name: str) -> torch.Tensor:
        values, before = deltas.load(name), bases.load(name)
        (_xor if format == "xor" else _add)(values, before)
        if record and tensor_hash(values) != record.result[name]:
            raise ModelError(
                f"{delta}: {name} does not match its recorded hash: the delta is damaged", fix="fetch it again"
            )
        return values

    with new_folder(output, overwrite=overwrite) as folder:
        planned = {name: pair.metadata for name, pair in pairs.items()}
        write_tensors(folder, planned, target_of, shard_bytes=shard_bytes, watch=watch)
        _add_side_files(folder, base, delta, pairs)
    return AppliedDelta(format, len(pairs), record is not None, _num_added_rows(pairs))


def tensor_hash(tensor: torch.Tensor) -> str:
    """sha256 of a tensor's bytes, whatever file it comes from."""
    digest = hashlib.sha256()
    for piece in byte_pieces(tensor):
        digest.update(piece)
    return digest.hexdigest()


def _check_base(record: DeltaRecord, bases: Tensors, pairs: dict[str, Pair], watch: Watch | None) -> None:
    record.check_names(list(pairs))
    total_bytes = sum(bases.metadata(name).num_bytes for name in pairs)
    done_bytes = 0
    for name in pairs:
        if tensor_hash(bases.load(name)) != record.base[name]:
            raise ModelError(
                f"{bases.path} is not the base this delta was made from: {name} differs",
                fix="apply it to the very model it was made from, same release and same dtype",
            )
        done_bytes += bases.metadata(name).num_bytes
        if watch:
            watch(done_bytes, total_bytes)


def _check_subtracts(pairs: dict[str, Pair]) -> None:
    for name, pair in pairs.items():
        if pair.metadata.dtype not in _SUBTRACTED:
            raise ModelError(f"{name} is {pair.metadata.dtype}, which has no difference", fix="use --format xor")


def _num_added_rows(pairs: dict[str, Pair]) -> int:
    return max((pair.num_added_rows for pair in pairs.values()), default=0)


def _xor(values: torch.Tensor, before: torch.Tensor) -> None:
    """XOR `before` into the leading rows of `values`: against the zeros of added rows nothing changes."""
    import torch

    values_bytes, before_bytes = values.reshape(-1).view(torch.uint8), before.reshape(-1).view(torch.uint8)
    values_bytes[: len(before_bytes)].bitwise_xor_(before_bytes)


def _add(values: torch.Tensor, before: torch.Tensor) -> None:
    before_flat = before.reshape(-1)
    values.reshape(-1)[: len(before_flat)].add_(before_flat)


def _subtract(values: torch.Tensor, before: torch.Tensor, digest: hashlib._Hash) -> int:
    """Subtract `before` from the leading rows of `values`; returns how many values adding it back does not restore.

    `digest` gets the bytes of what adding gives, which is what applying the delta will see.
    """
    import torch

    flat, before_flat = values.reshape(-1), before.reshape(-1)
    bits = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    difference, restored = torch.empty((2, _PIECE_VALUES), dtype=values.dtype)
    num_inexact = 0
    for start in range(0, len(before_flat), _PIECE_VALUES):
        length = min(_PIECE_VALUES, len(before_flat) - start)
        minuend, its_before = flat[start : start + length], before_flat[start : start + length]
        torch.sub(minuend, its_before, out=difference[:length])
        torch.add(difference[:length], its_before, out=restored[:length])
        for piece in byte_pieces(restored[:length]):
            digest.update(piece)
        num_inexact += int(restored[:length].view(bits).ne(minuend.view(bits)).count_nonzero())
        minuend.copy_(difference[:length])
    for piece in byte_pieces(flat[len(before_flat) :]):
        digest.update(piece)
    return num_inexact


def _add_side_files(folder: Path, base: Path, delta: Path, pairs: dict[str, Pair]) -> None:
    longer = max(pairs.values(), key=lambda pair: pair.num_added_rows)
    copied = copy_side_files(delta, folder, names=MODEL_FILES)
    if not set(copied) & set(TOKENIZER_FILES):
        copy_side_files(base, folder, names=TOKENIZER_FILES)
        if longer.num_added_rows == 1:
            extend_tokenizer(folder, pad_id=longer.metadata.shape[0] - 1)
    if "config.json" not in copied and (config := read_config(base)) is not None:
        if longer.num_added_rows and "vocab_size" in config:
            config["vocab_size"] = longer.metadata.shape[0]
        write_config(folder, config)
    copy_side_files(base, folder, names=("generation_config.json",))
