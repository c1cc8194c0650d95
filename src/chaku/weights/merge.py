"""A peft LoRA merged into its base, as a folder of its own; and where an adapter's base is."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from chaku.errors import ModelError
from chaku.models.fetch.folders import base_of
from chaku.models.files.modelconfig import read_config, write_config
from chaku.weights.adapter import Adapter, MergedTensors, merged, read_adapter
from chaku.weights.dequantise import save_dequantised
from chaku.weights.folder import TOKENIZER_FILES, copy_side_files, new_folder
from chaku.weights.shards import SHARD_BYTES, Watch, write_tensors
from chaku.weights.tensors import open_tensors


def merge(
    base: Path,
    adapter: Path,
    output: Path,
    *,
    shard_bytes: int = SHARD_BYTES,
    overwrite: bool = False,
    watch: Watch | None = None,
) -> list[Path]:
    """Write the folder `base` with the LoRA in the folder `adapter` merged in to the new folder `output`.

    One tensor is in memory at a time: W + scale · B·A in float32, rounded once to the base's dtype. Returns the shards.
    The adapter's tokenizer wins over the base's. Raises ModelError for an adapter of another kind or base.
    """
    tensors = merged_tensors(base, read_adapter(adapter))
    with new_folder(output, overwrite=overwrite) as folder:
        planned = {name: tensors.metadata(name) for name in tensors.names}
        files = write_tensors(folder, planned, tensors.load, shard_bytes=shard_bytes, watch=watch)
        write_side_files(base, adapter, tensors, folder)
    return [output / file.name for file in files]


def merged_tensors(base: Path, adapter: Adapter) -> MergedTensors:
    """The tensors of `base` with the adapter merged in."""
    config = read_config(base) or {}
    if config.get("quantization_config"):
        raise ModelError(f"{base} is quantised", fix="merge into the base in f16 or bf16")
    return merged(open_tensors(base), adapter, ties_embeddings=bool(config.get("tie_word_embeddings")))


def write_side_files(base: Path, adapter: Path, tensors: MergedTensors, folder: Path) -> None:
    """Config, tokenizer and template of a merged model."""
    copied = copy_side_files(adapter, folder, names=TOKENIZER_FILES)
    has_tokenizer = any(name.startswith(("tokenizer.", "vocab.", "sentencepiece.")) for name in copied)
    theirs = tuple(file.name for file in base.iterdir() if not (has_tokenizer and file.name in TOKENIZER_FILES))
    copy_side_files(base, folder, names=theirs)
    config = read_config(base)
    if config is not None:
        changed = {"vocab_size": tensors.metadata("model.embed_tokens.weight").shape[0]}
        if tensors.unties:
            changed["tie_word_embeddings"] = False
        write_config(folder, config | changed)


@contextlib.contextmanager
def base_folder(adapter: Path) -> Iterator[Path]:
    """The folder of an adapter's base.

    A GGUF base is dequantised into a temporary folder, which is gone after the block.
    """
    path = base_of(adapter)
    if path.is_dir():
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="chaku-base-") as scratch:
        save_dequantised(path, Path(scratch))
        yield Path(scratch)
