"""Which model a run starts from, and where it lies. Nothing is fetched or opened here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from chaku.errors import ModelError
from chaku.weights.local_paths import hub_id_of


@dataclass(frozen=True)
class Base:
    """Where a base model lies: a folder, a GGUF file, or an id of the hub, which `hub_base.at_hub` makes a folder."""

    name: str
    path: Path | None
    sha256: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    hub_id: str | None = None
    revision: str | None = None
    """The commit of a repository on the hub."""

    @property
    def is_gguf(self) -> bool:
        """One GGUF file."""
        return self.path is not None and self.path.is_file()


def find_base(name: str) -> Base:
    """A built-in name, a path, or a hub id (also ORG/NAME@REVISION). Nothing is fetched. Raises ModelError."""
    from chaku.models.fetch import cache
    from chaku.models.reference import BuiltIn
    from chaku.models.registry import BUILT_IN

    path = Path(name).expanduser()
    if path.is_dir() or path.suffix == ".gguf":
        if not path.exists():
            raise ModelError(f"no base model at {path}", fix="check `base` in the recipe")
        return Base(name, path, hub_id=hub_id_of(str(path.absolute())))
    if name in BUILT_IN:
        pulled = cache.find(BuiltIn(BUILT_IN[name]))
        if pulled is None:
            raise ModelError(f"the base model {name} is not here", fix=f"chaku pull {name}")
        row = BUILT_IN[name]
        return Base(name, pulled.path, pulled.sha256, row.licence.name, row.licence.url, row.hub_id)
    hub_id, _, revision = name.partition("@")
    if hub_id.count("/") != 1 or name.startswith((".", "/")):
        raise ModelError(
            f"base {name!r} is not a folder, GGUF, built-in name or hub id", fix="check `base` in the recipe"
        )
    return Base(name, None, hub_id=hub_id, revision=revision or None)
