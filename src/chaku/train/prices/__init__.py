"""What GPUs cost to rent: dated files that one can copy and edit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from chaku.config import Frozen, load
from chaku.errors import ConfigError, UsageError
from chaku.models.plan.accelerators import accelerator

Dollars = Annotated[float, Field(gt=0)]
NEWEST = "2026-06"
_FOLDER = Path(__file__).parent


class GpuPrice(Frozen):
    """Dollars for one GPU and hour, lowest and highest; None: nobody says."""

    on_demand: tuple[Dollars, Dollars] | None = None
    spot: tuple[Dollars, Dollars] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> GpuPrice:
        for low, high in filter(None, (self.on_demand, self.spot)):
            if low > high:
                raise ValueError(f"{low} to {high}: the lower price comes first")
        return self


class Prices(Frozen):
    """A price list."""

    as_of: str
    """When these were the prices, such as 2026-06."""
    gpus: dict[str, GpuPrice]

    def of(self, gpu: str) -> GpuPrice:
        """Of a GPU by its name in the table of accelerators; unknown prices where the list has none."""
        return self.gpus.get(gpu, GpuPrice())


def built_in() -> list[str]:
    """Dates of the price lists that come along, oldest first."""
    return sorted(file.stem for file in _FOLDER.glob("*.yaml"))


def price_file(name: str = NEWEST) -> Path:
    """A price list by its date, or as a file. Raises UsageError where there is none."""
    path = _FOLDER / f"{name}.yaml" if name in built_in() else Path(name)
    if not path.is_file():
        raise UsageError(f"{name} is not a price list", fix=f"name a YAML file, or one of {', '.join(built_in())}")
    return path


def read_prices(path: Path) -> Prices:
    """A price list. Raises ConfigError for keys and GPUs that are not known."""
    prices = load(Prices, path).config
    for gpu in prices.gpus:
        if accelerator(gpu).name != gpu:
            raise ConfigError(f"{path}: {gpu!r} is not a name in the table", fix=f"write {accelerator(gpu).name}")
    return prices
