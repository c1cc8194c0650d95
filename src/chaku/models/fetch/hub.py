"""Models on the Hugging Face Hub, fetched by huggingface_hub: its cache and its HF_* environment variables apply."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaku.errors import ModelError
from chaku.models.fetch.progress import Progress
from chaku.models.files.gguf import shard_paths
from chaku.models.reference import HubFile
from chaku.packages import install_command

_OFFLINE = "without a network, bring the .gguf here by hand and give its path"

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFERRED = (
    "Q4_K_M", "Q8_0", "Q5_K_M", "Q4_K_S", "Q4_0", "Q4_1", "Q6_K", "Q5_K_S", "Q5_0", "Q5_1", "IQ4_XS", "IQ4_NL",
    "MXFP4", "BF16", "F16", "F32",
)  # fmt: skip
"""Which quantisation is taken when a repository has several: the usual trade of size and quality first."""


def pull(reference: HubFile, progress: Progress) -> Path:
    """Fetch a GGUF, all its shards, into the hub's cache; the path of the (first) file. Raises ModelError."""
    try:
        import huggingface_hub
        from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]  # httpx's own
    except ImportError:
        message = f"hf:{reference.repo} needs the package huggingface_hub"
        raise ModelError(message, fix=install_command("hub")) from None
    try:
        return _pull(reference, huggingface_hub.HfApi(library_name="chaku"), progress)
    except (HfHubHTTPError, HTTPError, OSError, ValueError) as error:
        raise explain(reference, error) from None


def _pull(reference: HubFile, api: HfApi, progress: Progress) -> Path:
    named = reference.file if reference.file and reference.file.endswith(".gguf") else None
    if named and _is_cached(reference.repo, named, reference.revision):
        file = named
    else:  # a named file too: without a hub this fails at once, a download after half a minute of loud tries
        repository = api.model_info(reference.repo, revision=reference.revision)
        file = named or choose(reference, [sibling.rfilename for sibling in repository.siblings or ()])
    paths = [
        api.hf_hub_download(
            reference.repo, str(shard), revision=reference.revision, tqdm_class=_reporting_bar(progress)
        )
        for shard in shard_paths(Path(file))
    ]
    return Path(paths[0])


def _is_cached(repo: str, file: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, file, revision=revision), str)


def choose(reference: HubFile, files: list[str]) -> str:
    """The GGUF that is meant: of the quantisation asked for, the only one, or the most preferred.

    Image projectors and all shards but the first don't count. Raises ModelError listing the choices.
    """
    models = sorted(
        file
        for file in files
        if file.endswith(".gguf") and "mmproj" not in file.lower() and str(shard_paths(Path(file))[0]) == file
    )
    if not models:
        raise ModelError(
            f"hf:{reference.repo} holds no .gguf file",
            fix="look for a repository of the same model whose name ends in -GGUF",
        )
    wanted = (reference.file,) if reference.file else PREFERRED
    if len(models) == 1 and not reference.file:
        return models[0]
    for quantisation in wanted:
        matching = [file for file in models if _has_quantisation(file, quantisation)]
        if len(matching) == 1:
            return matching[0]
        if matching:
            break
    what = f"no single {reference.file}" if reference.file else f"{len(models)} models"
    revision = f"@{reference.revision}" if reference.revision else ""
    raise ModelError(
        f"hf:{reference.repo} holds {what}: {', '.join(models[:12])}{', ...' if len(models) > 12 else ''}",
        fix=f"name one: hf:{reference.repo}:{models[0]}{revision}",
    )


def _has_quantisation(file: str, quantisation: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(quantisation)}(?![A-Za-z0-9_])", file, re.IGNORECASE) is not None


def _reporting_bar(progress: Progress) -> type[Any]:
    """A progress bar class for huggingface_hub that draws nothing and tells `progress`."""
    from tqdm import tqdm

    class ReportingBar(tqdm):  # type: ignore[misc]
        def __init__(self, *_args: Any, total: int | None = None, initial: int = 0, **_kwargs: Any) -> None:
            super().__init__(disable=True)
            self.total_bytes, self.done_bytes = total, initial
            progress("download", initial, total)

        def update(self, n: float | None = 1) -> None:
            self.done_bytes += int(n or 0)
            progress("download", self.done_bytes, self.total_bytes)

    return ReportingBar


def explain(reference: HubFile, error: Exception) -> ModelError:
    """What went wrong at the hub, in one line with a way out."""
    from huggingface_hub import errors

    source = f"hf:{reference.repo}"
    token = "set HF_TOKEN to a token that may read it"  # noqa: S105 -- advice, not a token
    causes: list[tuple[type[Exception], str, str]] = [
        (errors.GatedRepoError, f"{source} is gated", f"accept its terms on the hub's page, then {token}"),
        (errors.RevisionNotFoundError, f"{source} has no revision {reference.revision!r}", "check the part after @"),
        (errors.RepositoryNotFoundError, f"{source} does not exist or is private", f"check its name, or {token}"),
        (errors.RemoteEntryNotFoundError, f"{source} has no file {reference.file!r}", "check the part after ':'"),
        (errors.OfflineModeIsEnabled, f"{source} is not cached and HF_HUB_OFFLINE is set", f"unset it; {_OFFLINE}"),
        (
            errors.LocalEntryNotFoundError,
            f"{source} is not cached and the hub can't be reached",
            f"check the connection, HF_ENDPOINT and HF_HUB_OFFLINE; {_OFFLINE}",
        ),
    ]
    for kind, message, fix in causes:
        if isinstance(error, kind):
            return ModelError(message, fix=fix)
    reason = (str(error) or type(error).__name__).strip().splitlines()[0]
    return ModelError(f"{source} can't be fetched: {reason}", fix=f"check the connection and HF_ENDPOINT; {_OFFLINE}")
