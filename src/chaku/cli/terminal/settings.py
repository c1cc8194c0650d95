"""The sampling settings a person can change: their names, ranges and meaning, in one table."""

from __future__ import annotations

from dataclasses import dataclass

from chaku.errors import UsageError
from chaku.nearest import did_you_mean

Value = int | float


@dataclass(frozen=True)
class Setting:
    """One request field. `high` None means no upper limit."""

    kind: type[int] | type[float]
    low: float
    high: float | None
    meaning: str

    @property
    def range(self) -> str:
        """The allowed values in words."""
        return f"{self.low:g} or more" if self.high is None else f"{self.low:g} to {self.high:g}"


SETTINGS = {
    "temperature": Setting(float, 0, 2, "0 always takes the likeliest token, higher is more varied"),
    "top_p": Setting(float, 0, 1, "take only tokens that together have this probability"),
    "max_tokens": Setting(int, 1, None, "longest answer, in tokens"),
    "seed": Setting(int, 0, None, "the same seed gives the same answer, where the engine can"),
    "frequency_penalty": Setting(float, -2, 2, "penalise a token more, the more often it has come"),
    "presence_penalty": Setting(float, -2, 2, "penalise each token that has come"),
    "top_k": Setting(int, 0, None, "take only the k likeliest tokens; an extension, not every server has it"),
    "min_p": Setting(float, 0, 1, "drop tokens below this share of the likeliest one; an extension"),
    "repetition_penalty": Setting(float, 0.01, 10, "above 1 against repetition; an extension"),
}


def find(name: str) -> Setting:
    """The setting of that name. Raises UsageError naming the nearest one."""
    if name in SETTINGS:
        return SETTINGS[name]
    fix = did_you_mean(name, SETTINGS, f"settings: {', '.join(SETTINGS)}")
    raise UsageError(f"there is no setting {name!r}", fix=fix)


def parse(name: str, text: str) -> Value:
    """The value of a setting. Raises UsageError naming value and range."""
    setting = find(name)
    try:
        value = setting.kind(text)
    except ValueError:
        kind = "a whole number" if setting.kind is int else "a number"
        raise UsageError(f"{name} is {text!r}, not {kind}", fix=f"give {setting.range}") from None
    if not (value >= setting.low and (setting.high is None or value <= setting.high)):
        raise UsageError(f"{name} is {text}, out of range", fix=f"give {setting.range}")
    return value
