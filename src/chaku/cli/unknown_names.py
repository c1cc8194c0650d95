"""Names in the settings of `chaku serve`, and on keys, under which nothing is known when it starts.

A model that is not served is no error, since a worker may join under its name. It may be a slip, so it is said once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from chaku.nearest import nearest
from chaku.serve.moderation.categories import unknown_categories
from chaku.settings import ServeConfig
from chaku.store.keys import Key

_MAX_LISTED = 20

MODEL_NAMES: Mapping[str, tuple[str, Callable[[ServeConfig], Iterable[str | None]]]] = {
    "models.fallback": ("--fallback", lambda config: [model.fallback for model in config.models]),
    "score_model": ("--score-model", lambda config: [config.score_model]),
    "prices": ("--price", lambda config: config.prices),
    "contestants.model": ("--contestant", lambda config: [contestant.model for contestant in config.contestants]),
    "moderation.guard": ("moderation.guard", lambda config: [config.moderation.guard] if config.moderation else []),
    "guests.limits.models": ("guests.limits", lambda config: config.guests.limits.models if config.guests else ()),
}
"""Every setting that names a served model: how it is called where it is given, and the names in it."""


def warnings_of(config: ServeConfig, sources: Mapping[str, str], keys: Iterable[Key] = ()) -> list[str]:
    """What may be a slip in the settings and on the keys, a sentence or more for each.

    `sources` has the name and source of every model that is served from the start. Raises ConfigError for a category of
    moderation that no judge can name.
    """
    warnings: list[str] = []
    if (policy := config.moderation) is not None:
        of_categories = unknown_categories(policy, sources.get(policy.guard or "", ""))
        warnings += [of_categories] if of_categories else []
    may_join = config.joins or bool(config.fastchat_networks)
    places: dict[str, list[str]] = {}
    for flag, names_in in MODEL_NAMES.values():
        for name in names_in(config):
            if name is not None:
                places.setdefault(name, []).append(flag)
    for key in keys:
        for name in key.limits.models:
            places.setdefault(name, []).append(f"key {key.name}")
    unknown = {name: list(dict.fromkeys(found)) for name, found in places.items() if name not in sources}
    return warnings + [_warning(name, found, list(sources), may_join=may_join) for name, found in unknown.items()]


def _warning(name: str, places: Sequence[str], served: Sequence[str], *, may_join: bool) -> str:
    near = nearest(name, served)
    verb = "names" if len(places) == 1 else "name"
    return " ".join(
        [
            f"{_listed(places)} {verb} the model {name!r}, which is not served.",
            *([f"Did you mean {near}?"] if near else []),
            f"Served: {_listed(served) or 'none'}.",
            *(["If a model joins under that name, it counts."] if may_join else []),
        ]
    )


def _listed(words: Sequence[str]) -> str:
    rest = len(words) - _MAX_LISTED
    return ", ".join(words[:_MAX_LISTED]) + (f" and {rest} more" if rest > 0 else "")
