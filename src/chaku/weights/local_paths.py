"""What a path of this machine says to others: its last part, or the hub id of a folder in the hub's cache."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

_ABSOLUTE = re.compile(r"(/|~/|[A-Za-z]:[\\/]).*", re.DOTALL)
_SNAPSHOT = re.compile(r".*[\\/]models--(?P<owner>.+?)--(?P<name>[^\\/]+)[\\/]snapshots[\\/][^\\/]+[\\/]?", re.DOTALL)
_SAYS_NOTHING = frozenset({"final", "checkpoints"})


def is_absolute(text: str) -> bool:
    """Whether a text is a path that names folders of one machine."""
    return "\n" not in text and _ABSOLUTE.fullmatch(text) is not None


def hub_id_of(path: str) -> str | None:
    """The repository that a folder in the hub's cache holds, such as org/name."""
    found = _SNAPSHOT.fullmatch(path)
    return f"{found['owner']}/{found['name']}" if found else None


def shown(text: str) -> str:
    """A path without the folders above; `final` with the run that it belongs to. Anything else as it is."""
    if not is_absolute(text):
        return text
    if hub_id := hub_id_of(text):
        return hub_id
    parts = [part for part in re.split(r"[\\/]+", text) if part not in ("", "~")]
    if not parts:
        return "."
    return "/".join(parts[-2:] if parts[-1] in _SAYS_NOTHING else parts[-1:])


def without_paths(value: Any, known: Iterable[str], *, whole: bool = False) -> Any:
    """JSON-like values or text in which `known` paths are only `shown`.

    With `whole`, any text that is a path and nothing else is too. What a model said, though it may look like a path,
    is left alone without it.
    """
    ordered = sorted({path.rstrip("/") for path in known if is_absolute(path)} - {""}, key=len, reverse=True)
    return _cleaned(value, [(re.compile(rf"{re.escape(path)}(?![\w-])"), shown(path)) for path in ordered], whole)


def _cleaned(value: Any, known: list[tuple[re.Pattern[str], str]], whole: bool) -> Any:
    if isinstance(value, dict):
        return {key: _cleaned(inner, known, whole) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(inner, known, whole) for inner in value]
    if not isinstance(value, str):
        return value
    if whole and is_absolute(value):
        return shown(value)
    for pattern, instead in known:
        value = pattern.sub(instead.replace("\\", "/"), value)
    return value
