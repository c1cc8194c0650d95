"""A base on the hub: pinned to its commit; its tokenizer and settings come first, its weights when training starts.

huggingface_hub fetches, so its cache and HF_* variables apply, and what was fetched once needs no hub again.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath
from typing import Any

import orjson

from chaku.errors import ModelError
from chaku.models.fetch.hub import explain
from chaku.models.reference import HubFile
from chaku.train.base import Base

_SETTINGS = frozenset({".json", ".model", ".jinja"})
_INDICES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")
_SECONDS = 10.0


def at_hub(base: Base, run: Path | None = None) -> Base:
    """The base with its folder in the hub's cache, without weights; one that is a local file or folder as it is.

    The commit that the run in the folder `run` began with is kept. Raises ModelError in one line where the hub does
    not know the base or can't be reached, and nothing was fetched before.
    """
    if base.path is not None or base.hub_id is None:
        return base
    revision = _begun_with(run, base.name) or base.revision
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, HTTPError  # type: ignore[attr-defined]  # httpx's own

    api = HfApi(library_name="chaku")
    try:
        found = api.model_info(base.hub_id, revision=revision, timeout=_SECONDS)
        names = [sibling.rfilename for sibling in found.siblings or ()]
        if "config.json" not in names:
            raise ModelError(f"base {base.name} on the hub has no config.json", fix="name one in safetensors form")
        folder = Path(api.hf_hub_download(base.hub_id, "config.json", revision=revision)).parent
        for name in names:
            if "/" not in name and PurePosixPath(name).suffix in _SETTINGS:
                api.hf_hub_download(base.hub_id, name, revision=folder.name)
    except (HTTPError, HFValidationError, OSError, ValueError) as error:
        cached = try_to_load_from_cache(base.hub_id, "config.json", revision=revision)
        if isinstance(cached, str) and getattr(error, "response", None) is None:  # no hub answered
            return dataclasses.replace(base, path=Path(cached).parent, revision=Path(cached).parent.name)
        raise _explained(base, revision, error) from None
    card: dict[str, Any] = dict(vars(found.card_data)) if found.card_data else {}
    licence = card.get("license_name") or card.get("license")
    return dataclasses.replace(
        base, path=folder, revision=folder.name, licence=licence, licence_url=card.get("license_link")
    )


def fetch_weights(base: Base) -> None:
    """Fetch what `at_hub` left out; nothing for other bases. Raises ModelError as it does."""
    if base.revision is None or base.path is None or base.hub_id is None:
        return
    from huggingface_hub import HfApi
    from huggingface_hub.errors import EntryNotFoundError, HTTPError  # type: ignore[attr-defined]

    api = HfApi(library_name="chaku")
    index = next((base.path / name for name in _INDICES if (base.path / name).is_file()), None)
    try:
        if index is not None:
            for name in sorted(set(orjson.loads(index.read_bytes())["weight_map"].values())):
                api.hf_hub_download(base.hub_id, name, revision=base.revision)
            return
        try:
            api.hf_hub_download(base.hub_id, "model.safetensors", revision=base.revision)
        except EntryNotFoundError:
            api.hf_hub_download(base.hub_id, "pytorch_model.bin", revision=base.revision)
    except (HTTPError, OSError, ValueError, KeyError) as error:
        raise _explained(base, base.revision, error) from None


def _begun_with(run: Path | None, name: str) -> str | None:
    path = run / "manifest.json" if run else None
    if path is None or not path.is_file():
        return None
    begun = orjson.loads(path.read_bytes())["base"]
    return str(begun["revision"]) if begun.get("name") == name and begun.get("revision") else None


def _explained(base: Base, revision: str | None, error: Exception) -> ModelError:
    found = explain(HubFile(str(base.hub_id), None, revision), error)
    return ModelError(
        f"base {found.message.removeprefix('hf:')}", fix=f"{found.fix}; or fetch it otherwise and name its folder"
    )
