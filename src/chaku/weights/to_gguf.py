"""Whatever holds a model, as one GGUF file: a Hugging Face folder, an adapter with its base, a run, another GGUF."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from chaku.models.fetch.converted import DEFAULT_QUANT
from chaku.models.fetch.folders import is_adapter, model_folder
from chaku.models.reference import folder_name
from chaku.weights.quantise import requantise

if TYPE_CHECKING:
    from chaku.weights.shards import Watch


def to_gguf(source: Path, target: Path, quant: str = DEFAULT_QUANT, *, watch: Watch | None = None) -> tuple[str, ...]:
    """Write the model in `source` to the file `target`, whole or not at all; returns notes for the user.

    Raises ModelError for a model that can't be written, UsageError where `target` is read.
    """
    if source.is_file():
        requantise(source, target, quant, watch=watch)
        return ()
    from chaku.weights.gguf_export import export_gguf
    from chaku.weights.tensors import open_tensors

    folder, name = model_folder(source), folder_name(source)
    if not is_adapter(folder):
        return export_gguf(folder, open_tensors(folder), target, quant, name=name, watch=watch)
    from chaku.weights.adapter import read_adapter
    from chaku.weights.merge import base_folder, merged_tensors, write_side_files

    with base_folder(folder) as base, tempfile.TemporaryDirectory(prefix="chaku-merged-") as scratch:
        tensors = merged_tensors(base, read_adapter(folder))
        write_side_files(base, folder, tensors, Path(scratch))
        return export_gguf(Path(scratch), tensors, target, quant, name=name, watch=watch)
