"""What calls cost: a file of prices, an estimate before anything is sent, and a budget that is never passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from chaku.complaints import in_words
from chaku.errors import ChakuError, UsageError
from chaku.evals.records import CallUsage
from chaku.policies import Price

Message = Mapping[str, Any]
_CHARS_PER_TOKEN = 4.0
"""English prose, for estimates."""
_TOKENS_PER_MESSAGE = 8


class BudgetReached(ChakuError):
    """The next call could cost more than what is left."""


def load_prices(path: Path) -> dict[str, Price]:
    """Model to price, from YAML or JSON: `MODEL: {prompt: 0.15, completion: 0.6}`. Raises UsageError."""
    try:
        content = yaml.safe_load(path.read_bytes())
    except OSError as error:
        raise UsageError(f"can't read {path}: {(error.strerror or str(error)).lower()}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {error}") from None
    if not isinstance(content, dict):
        raise UsageError(
            f"{path} is not a mapping of models to prices", fix="write MODEL: {prompt: 0.15, completion: 0.6}"
        )
    prices = {}
    for model, row in content.items():
        try:
            prices[str(model)] = Price.model_validate(row)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, (model, *first["loc"])))
            raise UsageError(
                f"{path}: {place}: {in_words(first)}", fix="write {prompt: 0.15, completion: 0.6}"
            ) from None
    return prices


def estimated_tokens(messages: Iterable[Message]) -> int:
    """About how many tokens a prompt has."""
    return sum(round(len(str(message["content"])) / _CHARS_PER_TOKEN) + _TOKENS_PER_MESSAGE for message in messages)


def most_tokens(messages: Iterable[Message]) -> int:
    """More tokens than a prompt can have, for the budget: a token stands for at least one byte."""
    return sum(len(str(message["content"]).encode()) + 2 * _TOKENS_PER_MESSAGE for message in messages)


class Budget:
    """Dollars that may be spent. A call is only begun if it fits whole, beside the calls that are under way."""

    def __init__(self, limit: float | None, prices: Mapping[str, Price], *, spent: float = 0.0) -> None:
        self.limit = limit
        self.spent = spent
        self._prices = prices
        self._reserved = 0.0

    def require_prices(self, models: Iterable[str]) -> None:
        """Raise UsageError where there is a limit, and a model without a price."""
        if self.limit is None:
            return
        if missing := [model for model in models if model not in self._prices]:
            raise UsageError(
                f"there is a budget, but no price for {', '.join(missing)}", fix="give a file of prices with --prices"
            )

    def reserve(self, model: str, messages: Sequence[Message], max_tokens: int) -> float:
        """Set aside what a call costs at most. Raises BudgetReached where that is not left."""
        price = self._prices.get(model)
        if price is None:
            return 0.0
        most = price.dollars(most_tokens(messages), max_tokens)
        if self.limit is not None and self.spent + self._reserved + most > self.limit:
            raise BudgetReached(
                f"the next call may cost ${most:.4f}, and ${self.spent:.4f} of the budget of ${self.limit:g} are spent",
                fix="what came is recorded: run the same command with a larger --budget to resume",
            )
        self._reserved += most
        return most

    def settle(self, model: str, reserved: float, usage: CallUsage) -> CallUsage:
        """Replace what was set aside by what the call cost, as its usage says; returns the usage with its dollars."""
        self._reserved -= reserved
        price = self._prices.get(model)
        if price is None:
            return usage
        dollars = usage.dollars
        if dollars is None:
            dollars = price.dollars(usage.prompt_tokens, usage.completion_tokens)
        self.spent += dollars
        return usage.model_copy(update={"dollars": dollars})
