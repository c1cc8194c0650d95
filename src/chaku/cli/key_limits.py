"""Options for the expiry and the limits of a key, and how they are shown."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import click
from pydantic import ValidationError

from chaku.cli.help_page import option_group
from chaku.complaints import in_words
from chaku.policies import Limits
from chaku.store.keys import Key

Command = TypeVar("Command", bound=Callable[..., Any])

UNCHANGED: Any = object()
"""The value of an option that was not given, where None means: no limit."""


class _Amount(click.ParamType[Any]):
    """A limit of `policies.Limits`, or the word none."""

    def __init__(self, kind: Callable[[str], float]) -> None:
        self.name = "number"
        self._kind = kind

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if value == "none":
            return None
        try:
            number = self._kind(value.replace("_", "").replace(",", ""))
        except ValueError:
            number = 0
        if not 0 < number < float("inf"):
            self.fail(f"{value!r} is not a number above 0, nor none", param, context)
        assert param is not None and param.name is not None
        try:
            Limits.model_validate({param.name: number})
        except ValidationError as error:
            self.fail(f"{value!r}: {in_words(error.errors()[0])}, or none", param, context)
        return number


class _Moment(click.ParamType[Any]):
    """A date, a time, or a number of days or hours: in the future for `ahead`, else in the past."""

    name = "moment"

    def __init__(self, *, ahead: bool) -> None:
        self._sign = 1 if ahead else -1

    def convert(self, value: Any, param: click.Parameter | None, context: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        if value in ("none", "never"):
            return None
        if span := re.fullmatch(r"(\d{1,6})([dh])", value):
            hours = int(span[1]) * (24 if span[2] == "d" else 1)
            return datetime.now(UTC) + self._sign * timedelta(hours=hours)
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a date: write 2026-01-31, 30d, 12h or never", param, context)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


MOMENT = _Moment(ahead=False)
_NUMBER, _MONEY = _Amount(int), _Amount(float)
_OPTIONS = (
    click.option(
        "--expires",
        "expires_at",
        metavar="WHEN",
        default=UNCHANGED,
        show_default="never",
        type=_Moment(ahead=True),
        help="When it ends: 30d, 12h, 2026-01-31 (UTC) or never.",
    ),
    click.option(
        "--model",
        "models",
        metavar="MODEL",
        multiple=True,
        show_default="every model",
        help="A model that it may ask, or all; repeatable.",
    ),
    *(
        click.option(
            "--" + name.replace("_", "-"),
            name,
            metavar="N",
            default=UNCHANGED,
            show_default="none",
            type=_MONEY if name.startswith("dollars") else _NUMBER,
            help=help_text,
        )
        for name, help_text in (
            ("requests_per_minute", "Requests that it may send within a minute."),
            ("tokens_per_minute", "Tokens of prompts and answers within a minute."),
            ("tokens_per_day", "Tokens of prompts and answers within a day (UTC)."),
            ("dollars_per_month", "Dollars within a month (UTC), at the prices of `chaku serve --price`."),
            ("max_tokens", "Tokens of one answer."),
        )
    ),
)


limit_options = option_group(*_OPTIONS)
"""--expires, --model and the limits."""
guest_limit_options = option_group(*_OPTIONS[1:])
"""--model and the limits: a guest does not expire."""


def changed(limits: Mapping[str, Any]) -> dict[str, Any]:
    """The limits that were given, as fields of `policies.Limits`; --model all lifts the limit on models."""
    given = {name: value for name, value in limits.items() if value is not UNCHANGED}
    models = given.pop("models", ())
    if models:
        given["models"] = () if models == ("all",) else models
    return given


def limits_in_words(key: Key) -> str:
    """Expiry and limits, such as "until 2026-01-31, 10 requests per minute"."""
    parts = [f"until {key.expires_at:%Y-%m-%d %H:%M} UTC"] if key.expires_at else []
    for name, value in key.limits.model_dump(exclude_defaults=True).items():
        parts.append(f"models {' '.join(value)}" if name == "models" else f"{value:,} {name.replace('_', ' ')}")
    return ", ".join(parts) or "no limits"


def shown_number(number: float) -> str:
    """A count with separators; dollars with four digits after the point."""
    return f"{number:,.4f}" if isinstance(number, float) else f"{number:,}"
