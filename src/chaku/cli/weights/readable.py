"""What a `chaku weights` command is given, as a folder or file that holds weights."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from chaku.models.fetch.folders import pulled
from chaku.models.reference import folder_name, is_checkpoint
from chaku.models.registry import BUILT_IN
from chaku.train.base import find_base
from chaku.weights.dequantise import save_dequantised


def _built_in(name: str) -> Path | None:
    """None for a name that is not built in. Raises ModelError for one that is, and was not pulled."""
    return find_base(name).path if name in BUILT_IN else None


@contextlib.contextmanager
def readable(model: Path, *, as_gguf: bool) -> Iterator[Path]:
    """The model's folder or file. A pulled name is looked up; a checkpoint of a run is exported first.

    A GGUF is dequantised first, unless `as_gguf`. What is written for that is gone after the block. Raises ModelError.
    """
    if not model.exists():
        model = pulled(str(model)) or _built_in(str(model)) or model
    with tempfile.TemporaryDirectory(prefix="chaku-weights-") as scratch:
        if is_checkpoint(model):
            from chaku.train.export import export_checkpoint

            folder = Path(scratch) / folder_name(model)
            export_checkpoint(model, folder)
            yield folder
        elif model.suffix == ".gguf" and not as_gguf:
            save_dequantised(model, Path(scratch))
            yield Path(scratch)
        else:
            yield model
