"""Models that are folders on this machine (Hugging Face's, peft adapters, runs), and what identifies their content."""

from __future__ import annotations

import contextlib
import hashlib
import json
from pathlib import Path

from chaku import config
from chaku.errors import ModelError
from chaku.models.fetch import cache
from chaku.models.files.modelconfig import ADAPTER_CONFIG, CONFIG, read_adapter_config
from chaku.models.reference import BuiltIn, HubFile, UrlFile, WheelFile, is_checkpoint, is_model_folder, parse_reference
from chaku.models.registry import BUILT_IN
from chaku.records import atomic_write, sha256_file

# What decides what a model computes and how it is addressed. Optimiser states and logs beside it don't.
_PARTS = (
    *("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin", "pytorch_model.bin.index.json", "*.pdparams"),
    *("adapter_model.bin", ADAPTER_CONFIG, CONFIG, "generation_config.json", "tokenizer.json"),
    *(
        "tokenizer.model",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.jinja",
    ),
)


def model_folder(path: Path) -> Path:
    """The folder that holds the model: `path`, a run's final/, or one of its checkpoints. Raises ModelError."""
    if is_checkpoint(path):
        return path
    for folder in (path, path / "final"):
        if is_model_folder(folder):
            return folder
    if (path / "checkpoints").is_dir():
        raise ModelError(f"the run {path} has not finished: there is no final/", fix="resume it, then serve it")
    raise ModelError(f"{path} is a folder without a model", fix=f"give one with {CONFIG} or {ADAPTER_CONFIG}")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds a peft adapter and no whole model."""
    return (folder / ADAPTER_CONFIG).is_file() and not (folder / CONFIG).is_file()


def base_of(adapter: Path) -> Path:
    """Where an adapter's base is: a folder, or a GGUF file.

    Its config names a path, a model that `chaku pull` knows, or one in the hub's cache; nothing is fetched. Raises
    ModelError where it is none of these.
    """
    adapter_config = read_adapter_config(adapter)
    named = adapter_config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise ModelError(
            f"{adapter / ADAPTER_CONFIG} does not name its base", fix="chaku weights merge BASE ADAPTER -o DIR"
        )
    for place in (Path(named).expanduser(), adapter / named):
        if place.is_dir() or (place.is_file() and place.suffix == ".gguf"):
            return place
    found = pulled(named) or in_hub_cache(named, adapter_config.get("revision"))
    if found is None:
        found = next((pulled(row.name) for row in BUILT_IN.values() if row.hub_id == named), None)
    if found is None:
        raise ModelError(
            f"{adapter} builds on {named!r}, which is not on this machine",
            fix="fetch it and merge: chaku weights merge BASE ADAPTER -o DIR",
        )
    return found


def pulled(named: str) -> Path | None:
    """Where a model lies that `chaku pull` fetched, by the name that it was pulled by; None where it is not here."""
    try:
        reference = parse_reference(named)
    except ModelError:  # no built-in name
        return None
    if not isinstance(reference, BuiltIn | HubFile | UrlFile | WheelFile):
        return None
    model = cache.find(reference)
    return model.path if model else None


def in_hub_cache(repo: str, revision: str | None = None) -> Path | None:
    """The folder of a repository that huggingface_hub has fetched; None where it has not. Nothing is fetched."""
    with contextlib.suppress(ImportError):
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

        with contextlib.suppress(HFValidationError, LocalEntryNotFoundError):
            return Path(snapshot_download(repo, revision=revision or None, local_files_only=True))
    return None


def content_hash(path: Path) -> str:
    """Sha256 over a model's files, and over its base's where it is an adapter. Unchanged files are not read."""
    if path.is_file():
        return _file_hash(path)
    if is_checkpoint(path):
        return _file_hash(path / "manifest.json")  # it holds the hashes of all files
    files = sorted({file for part in _PARTS for file in path.glob(part) if file.is_file()})
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {_file_hash(file)}\n".encode())
    if is_adapter(path):
        digest.update(f"base {content_hash(base_of(path))}\n".encode())
    return digest.hexdigest()


def _file_hash(file: Path) -> str:
    """A file's sha256, remembered for as long as its size and times stay."""
    file = file.resolve()
    status = file.stat()
    state = [str(file), status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    record = config.cache_dir() / "hashes" / f"{hashlib.sha256(str(file).encode()).hexdigest()[:24]}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # no record, or not one of ours
        known = json.loads(record.read_bytes())
        if known["state"] == state:
            return str(known["sha256"])
    sha256 = sha256_file(file)
    with cache.writing(record.parent), atomic_write(record) as out:
        out.write(json.dumps({"state": state, "sha256": sha256}).encode())
    return sha256
