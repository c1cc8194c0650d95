"""An output folder that is whole or absent: written under a hidden name beside it, then renamed."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from chaku.errors import ModelError, UsageError
from chaku.records import sync

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

_OLD = ".old"


@contextlib.contextmanager
def new_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a folder that becomes `path` when the block ends well, and vanishes when it does not.

    What is at `path` is refused without `overwrite`, and with it replaced only once the new one is whole. A process
    that is killed leaves the hidden folder `.NAME.*.part`, which the next run to the same path clears away.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    _clear_leftovers(path)
    check_output(path, overwrite=overwrite)
    part = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.{os.getpid()}.", suffix=".part"))
    part.chmod(0o755)
    try:
        yield part
        _sync(part)
        check_output(path, overwrite=overwrite)
        _put(part, path)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise


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


def _put(part: Path, path: Path) -> None:
    """Rename the new folder into place; what was there goes only then."""
    old = part.with_name(part.name + _OLD)
    if path.exists():
        path.rename(old)
    try:
        part.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    sync(path.parent)
    if old.exists():
        shutil.rmtree(old)


def _clear_leftovers(path: Path) -> None:
    """Remove what killed processes left, and put back an old output that one of them had already moved away."""
    for left in sorted(path.parent.glob(f".{path.name}.*.part*")):
        owner = left.name.removeprefix(f".{path.name}.").partition(".")[0]
        if not owner.isdigit() or _is_running(int(owner)):
            continue
        if left.name.endswith(_OLD) and not path.exists():
            left.rename(path)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(folder: Path) -> None:
    for file in folder.rglob("*"):
        if file.is_file():
            sync(file)
    sync(folder)
