"""From a MODEL argument to the numbers of that model, out of the one set of tables; nothing is fetched."""

from __future__ import annotations

from pathlib import Path

from chaku.errors import ModelError
from chaku.models import vicunas
from chaku.models.fetch import cache
from chaku.models.files.gguf import read_metadata
from chaku.models.files.shape import ModelShape, shape_of_folder, shape_of_gguf
from chaku.models.reference import BuiltIn, LocalFile, parse
from chaku.models.registry import BUILT_IN


def shape_of(model: str) -> ModelShape:
    """The numbers of a Vicuna, a built-in model, a .gguf, a folder or a config.json.

    A built-in model that is pulled is read from its file. Raises ModelError, and UsageError for what is not a file.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        files = sorted(path.glob("*.gguf"))
        if len(files) == 1 and not (path / "config.json").exists():
            return shape_of_gguf(read_metadata(files[0]))
        return shape_of_folder(path)
    if path.suffix == ".json":
        return shape_of_folder(path)
    if model not in BUILT_IN and not path.exists() and (release := vicunas.find(model)):
        return release.shape
    match parse(model).reference:
        case BuiltIn(row) as reference:
            found = cache.find(reference)
            return shape_of_gguf(read_metadata(found.path)) if found else row.shape
        case LocalFile(file):
            return shape_of_gguf(read_metadata(file))
        case reference:
            found = cache.find(reference)
            if found is None:
                raise ModelError(f"{model} is not here", fix="pull it first, or give its config.json")
            return shape_of_gguf(read_metadata(found.path))
