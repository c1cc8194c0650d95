"""What a fleet.yaml would start, and what that costs per hour: the table of `chaku up --dry-run`."""

from __future__ import annotations

from dataclasses import dataclass

from chaku.launch.fleet.spec import FleetConfig, Place, Pool
from chaku.models.plan.accelerators import accelerator
from chaku.train.prices import price_file, read_prices

_IGNORED: dict[Place, tuple[str, ...]] = {
    "local": ("cpus", "memory_gb", "gpus", "gpu"),
    "ray": (),
    "k8s": ("gpu", "max_replicas"),
    "sky": ("max_replicas",),
}
"""Keys of a pool that mean nothing at a place; the plan says so."""


@dataclass(frozen=True)
class Cost:
    """Dollars per hour, from the lowest price to the highest; None where no price is known."""

    low: float
    high: float

    def times(self, number: int) -> Cost:
        """For several of them."""
        return Cost(self.low * number, self.high * number)

    def __str__(self) -> str:
        low, high = f"${self.low:,.2f}", f"${self.high:,.2f}"
        return low if low == high else f"{low} to {high}"


def cost_of_worker(pool: Pool, *, spot: bool) -> Cost | None:
    """What one worker of a pool costs: its own price, or what the price list says of its GPUs."""
    if pool.price_per_hour is not None:
        return Cost(pool.price_per_hour, pool.price_per_hour)
    if pool.gpu is None:
        return None
    price = read_prices(price_file()).of(accelerator(pool.gpu).name)
    bounds = price.spot if spot else price.on_demand
    return None if bounds is None else Cost(bounds[0] * pool.gpus, bounds[1] * pool.gpus)


def plan_lines(fleet: FleetConfig, place: Place) -> list[str]:
    """The plan as text: a row for each pool, the cost of all workers, and the keys that mean nothing there."""
    rows = [("MODEL", "WORKERS", "NEEDS", "$/H OF ONE", "$/H")]
    least: list[Cost | None] = []
    most: list[Cost | None] = []
    for pool in fleet.workers:
        cost = cost_of_worker(pool, spot=place == "sky" and fleet.sky.spot)
        least.append(cost.times(pool.replicas) if cost else None)
        most.append(cost.times(pool.max_replicas or pool.replicas) if cost else None)
        number = f"{pool.replicas} to {pool.max_replicas}" if pool.max_replicas else str(pool.replicas)
        rows.append((pool.model, number, _needs(pool), str(cost or "-"), str(least[-1] or "-")))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [f"fleet {fleet.name}, on {place}"]
    lines += ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.append(_total(least, most))
    for pool in fleet.workers:
        ignored = [key for key in _IGNORED[place] if key in pool.model_fields_set]
        if ignored:
            lines.append(f"note: {', '.join(ignored)} of {pool.model} means nothing with --on {place}")
    return lines


def _total(least: list[Cost | None], most: list[Cost | None]) -> str:
    known, at_most = [cost for cost in least if cost], [cost for cost in most if cost]
    if not known:
        return "cost: no price is known; price_per_hour gives one"
    total = Cost(sum(cost.low for cost in known), sum(cost.high for cost in known))
    bound = sum(cost.high for cost in at_most)
    text = f"cost: {total} an hour" + (f", at most ${bound:,.2f}" if bound > total.high else "")
    num_unknown = len(least) - len(known)
    return text + (f", and {num_unknown} of {len(least)} pools without a known price" if num_unknown else "")


def _needs(pool: Pool) -> str:
    parts = [
        f"{pool.cpus:g} CPUs" if pool.cpus else "",
        f"{pool.memory_gb:g} GB" if pool.memory_gb else "",
        f"{pool.gpus} x {pool.gpu or 'GPU'}" if pool.gpus else "",
    ]
    return ", ".join(part for part in parts if part) or "-"
