"""What a path of this machine says to others: its last part, or the hub id of a folder in the hub's cache."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
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
    if Path(text).expanduser() == Path.home():
        return "~"
    parts = [part for part in re.split(r"[\\/]+", text) if part not in ("", "~")]
    if not parts:
        return "."
    return "/".join(parts[-2:] if parts[-1] in _SAYS_NOTHING else parts[-1:])


def absolute_in(value: Any) -> Iterator[str]:
    """Every text in JSON-like values that is an absolute path."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for inner in value:
            yield from absolute_in(inner)
    elif isinstance(value, str) and is_absolute(value):
        yield value


def without_paths(value: Any, known: Mapping[str, str], *, whole: bool = False) -> Any:
    """JSON-like values or text in which each `known` path is replaced, a longer one before a shorter.

    With `whole`, any text that is a path and nothing else is only `shown` too. Without it what a model said is left
    alone though it may look like a path.
    """
    ordered = sorted(((path.rstrip("/"), instead) for path, instead in known.items()), key=lambda pair: -len(pair[0]))
    patterns = [(re.compile(rf"{re.escape(path)}(?![\w-])"), instead) for path, instead in ordered if path]
    return _cleaned(value, patterns, whole)


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
