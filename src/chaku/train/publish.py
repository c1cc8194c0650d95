"""A finished run on a model hub: what is uploaded, without the paths of this machine, and the upload itself.

huggingface_hub does the transfer: its HF_* variables apply, and what is on the hub already is not sent again.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import yaml

from chaku.errors import ModelError, UsageError
from chaku.models.fetch.folders import is_adapter
from chaku.models.files.modelconfig import ADAPTER_CONFIG
from chaku.models.reference import is_model_folder
from chaku.packages import install_command
from chaku.weights.card import model_card, read_manifest
from chaku.weights.local_paths import absolute_in, shown, without_paths

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

_CONFIGS = frozenset(
    {
        "config.json", ADAPTER_CONFIG, "generation_config.json", "tokenizer_config.json", "special_tokens_map.json",
        "added_tokens.json",
    }
)  # fmt: skip
_SECONDS = 10.0
_WEIGHTS = ("model", "adapter_model", "pytorch_model")


@dataclass(frozen=True)
class Upload:
    """One file: its place in the repository, and a file here or what takes its place."""

    place: str
    content: Path | bytes

    @property
    def num_bytes(self) -> int:
        """Its size."""
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


@dataclass(frozen=True)
class Pushed:
    """What the hub has now."""

    url: str
    is_private: bool
    is_changed: bool
    """False: all of it was there already."""
    deleted: tuple[str, ...]
    """Weights of an earlier push that are not part of this one."""
    notes: tuple[str, ...]
    """What the hub said about the card."""


def collect(run: Path, repo: str, *, base: str | None = None, with_checkpoints: bool = False) -> list[Upload]:
    """final/ at the top, the run's records below run/. `base` is the hub's id of the base model, where it has one.

    Raises UsageError for a run without an end, or checkpoints that would tell of this machine.
    """
    manifest = read_manifest(run)
    final = run / "final"
    if not manifest.get("finished") or not is_model_folder(final):
        raise UsageError(f"{run} has not finished: there is nothing to publish", fix="continue it with --resume")
    unedited = model_card(manifest)
    published = manifest | {"base": manifest["base"] | ({"hub_id": base} if base else {})}
    config = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
    known = _known(run, manifest, config)
    uploads = []
    for path in sorted(place for place in final.rglob("*") if place.is_file() and not place.name.startswith(".")):
        place, content = (
            path.relative_to(final).as_posix(),
            path.read_bytes() if path.suffix in (".md", ".json") else b"",
        )
        if place == "README.md" and content.decode() == unedited:
            uploads.append(Upload(place, model_card(published, hub_id=repo).encode()))
        elif place == ADAPTER_CONFIG and is_adapter(final):
            uploads.append(Upload(place, _adapter_config(content, published, known)))
        elif place == "README.md" or place in _CONFIGS:
            uploads.append(
                Upload(place, _changed(path, without_paths(_read(path), known, whole=path.suffix == ".json")))
            )
        else:
            uploads.append(Upload(place, path))
    lines = [orjson.loads(line) for line in (run / "log.jsonl").read_bytes().splitlines()]
    cleaned = [orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE) for entry in without_paths(lines, known)]
    config = without_paths(config, known, whole=True)
    published = without_paths(published, known, whole=True)
    uploads += [
        Upload("run/config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True).encode()),
        Upload("run/manifest.json", orjson.dumps(published, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)),
        Upload("run/log.jsonl", b"".join(cleaned)),
    ]
    return uploads + (_checkpoints(run, known) if with_checkpoints else [])


def _known(run: Path, manifest: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, str]:
    """Paths of this machine that may stand in a run's files, and what stands there instead."""
    named = {path: shown(path) for path in absolute_in([manifest, config])}
    named |= {str(Path(path).expanduser().resolve()): short for path, short in named.items()}
    here = {str(run.resolve()): run.name, str(run.resolve().parent): ".", str(Path.cwd()): ".", str(Path.home()): "~"}
    return {path: short for path, short in {**here, **named}.items() if path != "/"}


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes()) if path.suffix == ".json" else path.read_text(encoding="utf-8")


def _changed(path: Path, cleaned: Any) -> Path | bytes:
    """The file itself where cleaning changed nothing."""
    if cleaned == _read(path):
        return path
    return cleaned.encode() if isinstance(cleaned, str) else json.dumps(cleaned, indent=2, ensure_ascii=False).encode()


def _adapter_config(content: bytes, manifest: Mapping[str, Any], known: Mapping[str, str]) -> bytes:
    """With the base as others find it."""
    config = json.loads(content)
    config["base_model_name_or_path"] = manifest["base"].get("hub_id") or manifest["base"]["name"]
    return json.dumps(without_paths(config, known, whole=True), indent=2, ensure_ascii=False).encode()


def _checkpoints(run: Path, known: Mapping[str, str]) -> list[Upload]:
    files = sorted(path for path in (run / "checkpoints").glob("step-*/*") if path.is_file())
    for path in files:
        if path.suffix != ".distcp" and any(place.encode() in path.read_bytes() for place in known):
            raise UsageError(
                f"{path} names folders of this machine: an older chaku wrote it", fix="push without --checkpoints"
            )
    return [Upload(f"run/{path.relative_to(run).as_posix()}", path) for path in files]


def check_id(repo: str) -> None:
    """Raises UsageError where huggingface_hub is not installed, or `repo` can't be the id of a repository."""
    try:
        from huggingface_hub.errors import HFValidationError
        from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]
    except ImportError:
        raise UsageError("pushing needs the package huggingface_hub", fix=install_command("hub")) from None
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(
            f"{repo!r} can't be a repository: {str(error).splitlines()[0]}", fix="write it as ORG/NAME"
        ) from None


def push(repo: str, uploads: list[Upload], *, is_private: bool, message: str) -> Pushed:
    """Make the repository if it is not there, and commit all files at once. Raises ModelError in one line."""
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # httpx's own
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    api = HfApi(library_name="chaku")
    try:
        before = _there(api, repo)
        if before is None:
            repo = api.create_repo(repo, private=is_private, exist_ok=True).repo_id
            before = api.model_info(repo)
        places = {upload.place for upload in uploads}
        stale = [entry.rfilename for entry in before.siblings or () if _is_stale(entry.rfilename, places)]
        operations: list[Any] = [CommitOperationDelete(path_in_repo=name) for name in stale]
        for upload in uploads:
            content = upload.content if isinstance(upload.content, bytes) else str(upload.content)
            operations.append(CommitOperationAdd(path_in_repo=upload.place, path_or_fileobj=content))
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            commit = api.create_commit(repo, operations, commit_message=message)
    except (HTTPError, OSError, ValueError, RuntimeError) as error:
        raise _explain(api, repo, error) from None
    notes = tuple(str(entry.message) for entry in warned if "README.md" in str(entry.message))
    is_changed = commit.oid != before.sha
    return Pushed(f"{api.endpoint}/{repo}", bool(before.private), is_changed, tuple(stale), notes)


def _there(api: HfApi, repo: str) -> ModelInfo | None:
    """The repository if it is there; asked with a deadline, which later calls have not."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(repo, timeout=_SECONDS) if "/" in repo else None
    except RepositoryNotFoundError:
        return None


def _is_stale(name: str, places: set[str]) -> bool:
    """Weights at the top, which transformers might take instead of ours."""
    return name not in places and "/" not in name and name.startswith(_WEIGHTS)


def _explain(api: HfApi, repo: str, error: BaseException) -> ModelError:
    from huggingface_hub import get_token

    cause: BaseException | None = error
    while cause is not None and getattr(cause, "response", None) is None:
        cause = cause.__cause__
    status = getattr(getattr(cause, "response", None), "status_code", None)
    write = "make one with write permission in the hub's settings"
    causes = {
        401: ("the hub does not accept the token" if get_token() else "the hub asks for a token",
              f"set HF_TOKEN, or run `hf auth login`; {write}"),
        403: (f"the token may not write to {repo}", f"{write}, or name a repository of your own"),
        404: (f"{repo} is not there, or the token may not see it", "check the name"),
        429: ("the hub has had too many requests", "wait, then push again: what is there is not sent again"),
    }  # fmt: skip
    if status in causes:
        message, fix = causes[status]
        return ModelError(message, fix=fix)
    if isinstance(error, ValueError) and "metadata in README.md" in str(error):
        message = " ".join(str(error).split())
        return ModelError(f"{repo}: {message}", fix="correct the lines between --- at the top of final/README.md")
    told = getattr(cause, "server_message", None) or str(cause or error.__cause__ or error) or type(error).__name__
    reason = " ".join(told.split())[:300].replace(get_token() or "\0", "***")
    reason = f"it answered {status}: {reason}" if status else reason
    return ModelError(
        f"{repo} can't be pushed to {api.endpoint}: {reason[:300]}",
        fix="check the connection and HF_ENDPOINT, then push again: what is there is not sent again",
    )
