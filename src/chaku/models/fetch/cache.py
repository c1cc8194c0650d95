"""Where pulled models lie: one folder each under the cache folder, holding the file and a record that vouches for it.

A file without its record, written last, is not a model; so whatever a killed pull leaves is never taken for one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from chaku import config
from chaku.errors import ModelError
from chaku.models.fetch.progress import Progress
from chaku.models.files.gguf import shard_paths
from chaku.models.reference import BuiltIn, HubFile, Reference, UrlFile, WheelFile
from chaku.records import atomic_write

logger = logging.getLogger(__name__)

_RECORD = "chaku.json"
_POLL_S = 0.2
_NO_WRITING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST}
)


@dataclass(frozen=True)
class PulledModel:
    """A model file on this machine. `sha256` is None where the hub's own cache vouches for the file."""

    source: str
    path: Path
    num_bytes: int
    sha256: str | None
    pulled_at: str
    """UTC, ISO 8601."""


def models_dir() -> Path:
    """The folder with one folder for each pulled model."""
    return config.cache_dir() / "models"


def canonical(reference: Reference) -> str:
    """The text that names where a model comes from, the same for equal sources; it can be parsed again."""
    match reference:
        case BuiltIn(row):
            return row.name
        case HubFile(repo, file, revision):
            return f"hf:{repo}" + (f":{file}" if file else "") + (f"@{revision}" if revision else "")
        case WheelFile(package, version, member):
            return f"pypi:{package}=={version}" + (f":{member}" if member else "")
        case UrlFile(url, sha256):
            return f"{url}#sha256={sha256}"
        case _:
            raise ModelError(f"{reference} is not something that is pulled")


def folder_of(reference: Reference) -> Path:
    """Where the pulled file of this reference lies or will lie."""
    source = canonical(reference)
    if isinstance(reference, BuiltIn):
        return models_dir() / source
    readable = re.sub(r"[^A-Za-z0-9._=-]+", "-", source)[:80].strip(".-")
    return models_dir() / f"{readable}-{hashlib.sha256(source.encode()).hexdigest()[:10]}"


def file_name(name: str) -> str:
    """A name from elsewhere (a URL, a wheel's table of contents) as a plain file name."""
    return re.sub(r"[^\w.+-]", "_", name.rpartition("/")[2]).lstrip(".") or "model.gguf"


def find(reference: Reference) -> PulledModel | None:
    """The pulled model, if it is whole: its record is there, the size is the recorded one, a pinned sha256 too."""
    model = _read_record(folder_of(reference))
    if model is None or model.source != canonical(reference):
        return None
    pinned = reference.row.sha256 if isinstance(reference, BuiltIn) else getattr(reference, "sha256", None)
    return model if pinned in (None, model.sha256) else None


def pulled() -> list[PulledModel]:
    """Every model that is whole, by source."""
    folders = models_dir().iterdir() if models_dir().is_dir() else ()
    found = [model for folder in folders if (model := _read_record(folder))]
    return sorted(found, key=lambda model: model.source)


def _read_record(folder: Path) -> PulledModel | None:
    try:
        fields = json.loads((folder / _RECORD).read_bytes())
        path = Path(fields["path"])
        path = path if path.is_absolute() else folder / path
        model = PulledModel(fields["source"], path, fields["num_bytes"], fields["sha256"], fields["pulled_at"])
        return model if _size(path) == model.num_bytes else None
    except (OSError, ValueError, KeyError, TypeError):  # no record, or not one of ours: not a model
        return None


def _size(path: Path) -> int:
    """Bytes of a model, all its shards."""
    return sum(shard.stat().st_size for shard in shard_paths(path))


def save(reference: Reference, path: Path, sha256: str | None) -> PulledModel:
    """Vouch for a whole file, in the folder of its reference or elsewhere (the hub's cache)."""
    folder = folder_of(reference)
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    model = PulledModel(canonical(reference), path, _size(path), sha256, now)
    fields = asdict(model) | {"path": path.name if path.parent == folder else str(path)}
    with writing(folder), atomic_write(folder / _RECORD) as file:
        file.write(json.dumps(fields, indent=1).encode() + b"\n")
    return model


def remove(reference: Reference) -> int:
    """Delete a pulled model; the bytes freed. Raises ModelError when it was not pulled."""
    folder = folder_of(reference)
    if not folder.is_dir():
        raise ModelError(f"{canonical(reference)} is not pulled", fix="`chaku models list` shows what is")
    with lock(reference):
        freed = sum(file.lstat().st_size for file in folder.rglob("*") if file.is_file() and not file.is_symlink())
        (folder / _RECORD).unlink(missing_ok=True)
        shutil.rmtree(folder)
    return freed


def clear_leftovers(reference: Reference) -> None:
    """Delete what a killed pull left behind, except the beginning of a URL's file. Call it under the model's lock."""
    folder = folder_of(reference)
    for leftover in folder.glob(".pull-*"):
        shutil.rmtree(leftover)
    for leftover in folder.glob(".*.part"):
        if not isinstance(reference, UrlFile):
            leftover.unlink()


@contextlib.contextmanager
def lock(reference: Reference, progress: Progress | None = None) -> Iterator[None]:
    """Keep other processes from pulling or removing the same model; ends with the process, however it ends."""
    with lock_path(folder_of(reference), progress):
        yield


@contextlib.contextmanager
def lock_path(path: Path, progress: Progress | None = None) -> Iterator[None]:
    """Keep other processes from making or removing the same file or folder; ends with the process."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(f".{path.name}.lock").open("wb")
    with file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if progress:
                    progress("wait", 0, None)
                time.sleep(_POLL_S)
            except OSError as error:  # a file system without locks, as some clusters have
                logger.warning("no lock on %s (%s): don't pull it twice at once", path, error.strerror)
                break
        yield


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Turn a full disk, or one that can't be written, into a ModelError."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_WRITING:
            raise
        fix = "free some space, or set CHAKU_CACHE to a folder that can be written"
        raise ModelError(f"can't write to {folder}: {os.strerror(error.errno)}", fix=fix) from None


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise ModelError when `folder`'s disk has less room than that."""
    if (free_bytes := free_disk_bytes(folder)) < needed_bytes:
        raise ModelError(
            f"{folder} has {free_bytes / 1e6:,.0f} MB free, this model needs {needed_bytes / 1e6:,.0f} MB",
            fix="free some space, or set CHAKU_CACHE to a folder on a larger disk",
        )


def free_disk_bytes(folder: Path) -> int:
    """Free space where `folder` is or would be made."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free
