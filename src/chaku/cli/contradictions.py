"""Settings of `chaku serve` that contradict each other, though each alone is right."""

from __future__ import annotations

from operator import attrgetter

from chaku.complaints import shown
from chaku.errors import ConfigError
from chaku.settings import ServeConfig

_ONLY_WITH = {
    "ui": ("guests", "user_header", "runs", "evals", "contestants", "arena_battles_per_hour", "arena_turns"),
    "keep": ("batch_parallel", "retention_days.chats", "retention_days.battles", "retention_days.files"),
}
"""Settings that do something only where another is true."""


def check_effects(config: ServeConfig) -> None:
    """Raise ConfigError for a setting that was given and that another one, which is false, leaves without effect."""
    default = ServeConfig()
    for switch, keys in _ONLY_WITH.items():
        for key in keys if not getattr(config, switch) else ():
            value = attrgetter(key)(config)
            if value not in (attrgetter(key)(default), 0):
                raise ConfigError(
                    f"{key} is {shown(value)}, and has no effect where {switch} is false",
                    fix=f"leave out {key}, or set {switch} to true (no --no-{switch})",
                    param=key,
                )
