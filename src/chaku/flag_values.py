"""What one flag of `chaku serve` says, for settings that are more than a word: as a YAML file would write it.

A flag that can't be read is a ValueError, which says how to write it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import yaml

from chaku.errors import ConfigError
from chaku.policies import ImageLimits, Price, Retention


def pair_of(text: Any, form: str) -> tuple[str, str]:
    """KEY=VALUE; `form` is how to write it."""
    key, _, value = str(text).partition("=")
    if not key or not value:
        raise ValueError(f"{str(text)[:80]!r} is not {form}")
    return key, value


def price_of(text: str) -> tuple[str, dict[str, str]]:
    """NAME=PROMPT/COMPLETION, in dollars per million tokens."""
    found = re.fullmatch(r"(?P<name>.+)=(?P<prompt>[^/]+)/(?P<completion>[^/]+)", text)
    if found is None:
        raise ValueError(f"{text[:80]!r} is not NAME=PROMPT/COMPLETION, in dollars per million tokens")
    return found["name"], {"prompt": found["prompt"], "completion": found["completion"]}


def prices_of_flags(texts: Sequence[str]) -> dict[str, Price]:
    """All prices, checked. Raises ConfigError."""
    try:
        return {name: Price.model_validate(price) for name, price in map(price_of, texts)}
    except ValueError as error:  # pydantic's too
        raise ConfigError(f"--price: {str(error).splitlines()[0]}", fix="write it such as my-model=0.15/0.6") from None


def days_of(text: str) -> tuple[str, str]:
    """KIND=DAYS: how long data of a kind is kept."""
    kind, sign, days = text.partition("=")
    if not sign or kind not in Retention.model_fields:
        raise ValueError(f"{text[:80]!r} is not KIND=DAYS: kinds are {', '.join(Retention.model_fields)}")
    return kind, days


def image_limit_of(text: str) -> tuple[str, float]:
    """KIND=NUMBER: a limit of images."""
    kind, _, number = text.partition("=")
    try:
        value = float(number)
    except ValueError:
        value = -1
    if value < 0 or kind not in ImageLimits.model_fields:
        raise ValueError(f"{text[:80]!r} is not KIND=NUMBER: kinds are {', '.join(ImageLimits.model_fields)}")
    return kind, value


def contestant_of(text: str) -> Any:
    """MODEL, NAME=MODEL, or a mapping."""
    if not text.lstrip().startswith("{"):
        name, _, model = text.partition("=")
        return {"name": name, "model": model or name}
    return _mapping_of(text, "{name: NAME, model: MODEL, system: TEXT}")


def moderation_of(text: str) -> Any:
    """The word rules, the URL of an API, or a mapping."""
    if text.startswith(("http://", "https://")):
        return {"url": text}
    if text == "rules":
        return {"rules": True}
    return _mapping_of(text, "rules, a URL, or {rules: true, actions: {...}}")


def _mapping_of(text: str, example: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"{text[:80]!r} is not a mapping: write {example}") from None
