"""An output folder of weights: whole or absent, and never in the place of something else."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from chaku.errors import ModelError, UsageError
from chaku.records import atomic_folder

WEIGHT_SUFFIXES = (
    ".safetensors",
    ".bin",
    ".pt",
    ".pth",
    ".pdparams",
    ".gguf",
    ".index.json",
    ".msgpack",
    ".h5",
    ".onnx",
)
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "vocab.txt", "sentencepiece.bpe.model", "chat_template.jinja"),
)
MODEL_FILES = ("config.json", "generation_config.json", *TOKENIZER_FILES)
"""What makes weights a model; not its card or licence, which a delta's target does not share."""


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a folder that becomes `path` when the block ends well, and vanishes when it does not.

    What is at `path` is refused without `overwrite`, and with it replaced only once the new one is whole.
    """
    with atomic_folder(path) as part:
        check_output(path, overwrite=overwrite)
        yield part
        check_output(path, overwrite=overwrite)


def copy_side_files(source: Path, target: Path, *, names: tuple[str, ...] | None = None) -> list[str]:
    """Copy a model's files that are not weights (or only `names`) where `target` has none yet; returns their names."""
    copied = []
    for file in sorted(source.iterdir()) if source.is_dir() else []:
        wanted = not file.name.startswith(".") and not file.name.endswith(WEIGHT_SUFFIXES)
        if file.is_file() and wanted and (names is None or file.name in names) and not (target / file.name).exists():
            shutil.copyfile(file, target / file.name)
            copied.append(file.name)
    return copied


def check_output(path: Path, *, overwrite: bool) -> None:
    """Raise unless a new folder may be put at `path`; also to be asked before a long check of the inputs.

    With `overwrite` too, only an empty folder or one with weights in it is replaced: never someone's home.
    """
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise UsageError(f"{path} exists", fix="choose another output, or pass --overwrite to replace it")
    if not path.is_dir() or path.is_symlink():
        raise ModelError(f"{path} is not a folder, and is not replaced", fix="choose another output")
    held = list(path.iterdir())
    if held and not any(file.name.endswith(WEIGHT_SUFFIXES) for file in held):
        raise ModelError(f"{path} holds no weights, and is not replaced", fix="choose another output")
