"""`chaku estimate`: memory, hours and dollars of a training job on GPUs that one could rent."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chaku.cli.help_page import command
from chaku.cli.json_output import print_json
from chaku.cli.lines import say
from chaku.cli.training_set import training_set
from chaku.data.manifest import read_manifest
from chaku.data.recipe import base_of_recipe, data_config
from chaku.errors import UsageError
from chaku.models.plan.accelerators import accelerator
from chaku.models.sources import shape_of
from chaku.train.base import find_base
from chaku.train.config import is_hub_id, read_recipe, recipe_of, train_config
from chaku.train.estimate import OVERHEAD, job_of_rows, job_of_tokens, offer, smallest
from chaku.train.hub_base import at_hub
from chaku.train.prices import NEWEST, price_file, read_prices
from chaku.train.rows import Rows

if TYPE_CHECKING:
    from chaku.models.files.shape import ModelShape
    from chaku.train.config import TrainConfig
    from chaku.train.estimate import Job, Offer
    from chaku.train.prices import Prices

DEFAULT_GPUS = ("A100-40GB", "A100-80GB", "H100-80GB", "H200", "L40S", "RTX4090")
_GIB = 1 << 30
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


def _tokens(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    if value is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMB]?)", value.strip().upper())
    if not match or not (number := int(float(match[1]) * _UNITS[match[2]])):
        raise click.BadParameter(f"{value!r} is not a number of tokens; write 350M or 1.2B", ctx, param)
    return number


@command()
@click.argument("what", metavar="RECIPE|MODEL", required=False)
@click.option("--set", "settings", multiple=True, metavar="A.B=C", help="Change a value of the recipe; repeat it.")
@click.option(
    "--tokens",
    metavar="TOKENS",
    show_default="the recipe's set, built",
    callback=_tokens,
    help="Tokens of one epoch, such as 350M.",
)
@click.option("--gpu", "gpus", show_default="six kinds", multiple=True, metavar="NAME", help="Kind of GPU; repeat it.")
@click.option(
    "--count",
    metavar="N",
    show_default="as few of 1, 2, 4, 8 as it fits on",
    type=click.IntRange(1, 64),
    help="How many.",
)
@click.option(
    "--mfu",
    metavar="SHARE",
    show_default="by kind",
    type=click.FloatRange(0, 1, min_open=True),
    help="Useful share of their arithmetic.",
)
@click.option(
    "--prices", "price_list", show_default="the newest", metavar="LIST", help="Date of a list in chaku, or a YAML file."
)
@click.option("--print-prices", is_flag=True, help="Print the price list, so that a copy can be edited.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def estimate(
    what: str | None, settings: tuple[str, ...], tokens: int | None, gpus: tuple[str, ...], count: int | None,
    mfu: float | None, price_list: str | None, print_prices: bool, as_json: bool,
) -> None:  # fmt: skip
    """Estimate what training costs: GPU memory, hours, dollars.

    A RECIPE is a YAML file as `chaku train` takes it; without --tokens its set is built first. A MODEL is a published
    Vicuna, a built-in name, a .gguf, or a Hugging Face folder or config.json, trained on --tokens by the preset
    vicuna-7b (another one: --set train.preset=lora).
    """

    file = price_file(price_list or NEWEST)
    if print_prices:
        click.echo(file.read_text(encoding="utf-8"), nl=False)
        return
    prices = read_prices(file)
    job = _job(what, settings, tokens)
    offers = offers_of(job, prices, gpus or DEFAULT_GPUS, count, mfu)
    if as_json:
        print_json(_as_json(job, offers, prices))
        return
    print_job(job)
    print_offers(offers, prices)


def _job(what: str | None, settings: tuple[str, ...], tokens: int | None) -> Job:
    if what is None:
        raise UsageError("nothing to estimate", fix="name a recipe, or a model and --tokens 350M")
    if Path(what).suffix in (".yaml", ".yml"):
        recipe = read_recipe(Path(what), settings)
    else:
        recipe = recipe_of({"name": what, "base": what, "train": {"preset": "vicuna-7b"}}, settings, where=what)
        if tokens is None:
            raise UsageError(
                f"{what} is a model, without a number of tokens", fix="add --tokens 350M, or name a recipe"
            )
    shape, config, data = _shape(base_of_recipe(recipe)), train_config(recipe), data_config(recipe)
    if tokens is not None and not isinstance(data, Path):
        return job_of_tokens(shape, config, tokens, data.pack_length or data.context)
    folder = training_set(recipe)
    length = read_manifest(folder)["pack_length"]
    return job_of_tokens(shape, config, tokens, length) if tokens else job_of_rows(
        shape, config, Rows(folder, "train"), length
    )  # fmt: skip


def _shape(base: str) -> ModelShape:
    """Of a base that is here, known by name, or on the hub, whose settings are fetched."""

    if not is_hub_id(base):
        return shape_of(base)

    return dataclasses.replace(shape_of(str(at_hub(find_base(base)).path)), name=base)


def offers_of(
    job: Job, prices: Prices, gpus: Iterable[str], count: int | None = None, mfu: float | None = None
) -> list[Offer]:
    """The job on each kind of GPU. Raises UsageError for one that no table knows, or for more than can be used."""

    if count and count > 1 and job.config.method == "qlora":
        raise UsageError(
            f"qlora runs in one process, not on {count} GPUs", fix="leave out --count, or say method: lora"
        )
    kinds = [accelerator(name) for name in gpus]
    return [offer(job, gpu, count, prices, mfu) if count else smallest(job, gpu, prices, mfu) for gpu in kinds]


def print_job(job: Job) -> None:
    """What is to be done, in two lines."""
    config = job.config
    say(
        f"{job.shape.name}: {job.shape.num_parameters:,} parameters, {job.num_learning:,} of them learn"
        f" ({config.method}, {config.precision}; activation checkpointing {config.activation_checkpointing})"
    )
    say(
        f"{job.num_tokens:,} tokens over {epochs(config)}: {job.num_steps:,} steps of {config.batch_rows} rows"
        f" of {job.row_length:,}; {job.flops:.2e} useful FLOPs\n"
    )


def epochs(config: TrainConfig) -> str:
    """How many, in words."""
    return f"{config.epochs} epoch{'s' * (config.epochs != 1)}"


def print_offers(offers: list[Offer], prices: Prices) -> None:
    """One line for each kind of GPU, and what the figures rest on."""

    click.echo(f"{'gpus':<14}{'memory of each':>19}{'MFU':>6}{'time':>10}{'on demand':>15}{'spot':>15}")
    for one in offers:
        needed, there = one.memory.total / _GIB, one.gpu.memory_bytes / _GIB
        line = f"{one.count} x {one.gpu.name:<10}{needed:>7.1f} of {there:>5.1f} GiB"
        if not one.fits or one.hours is None:
            click.echo(f"{line}   {_why_not(one)}")
            continue
        marks = ("?" if one.is_guess else " ") + ("*" if one.waits_for_links else " ")
        money = "".join(f"{_money(each):>15}" for each in (one.on_demand, one.spot))
        click.echo(f"{line}{one.mfu:>5.0%}{marks}{_hours(one.hours):>9}{money}")
    say(
        "\nThe MFU is assumed, and a guess where it has a ? (--mfu sets it); * waits for the links between GPUs."
        f"\nTimes hold {OVERHEAD - 1:.0%} for restarts and evaluation. Prices of {prices.as_of}, lowest to highest seen"
        " (--prices)."
    )


def _why_not(one: Offer) -> str:
    if not one.fits:
        return "does not fit" + (f"; it would with {one.way_out}" if one.way_out else "")
    return "has no bf16" if not one.gpu.has_bf16 else "hours are known for bf16 alone"


def _hours(hours: float) -> str:
    if hours < 0.95:
        return f"{max(hours * 60, 1):.0f} min"
    return f"{hours:.1f} h" if hours < 99.5 else f"{hours:,.0f} h"


def _money(dollars: tuple[float, float] | None) -> str:
    if dollars is None:
        return "-"
    if dollars[1] < 0.01:
        return "under $0.01"
    low, high = (f"{each:,.0f}" if dollars[1] >= 9.5 else f"{each:.2f}" for each in dollars)
    return f"${low}" if low == high else f"${low} to {high}"


def _as_json(job: Job, offers: list[Offer], prices: Prices) -> dict[str, Any]:
    return {
        "model": dataclasses.asdict(job.shape),
        "num_learning": job.num_learning,
        "num_tokens": job.num_tokens,
        "num_steps": job.num_steps,
        "row_length": job.row_length,
        "document_length": job.document_length,
        "useful_flops": job.flops,
        "train": job.config.model_dump(mode="json"),
        "prices_as_of": prices.as_of,
        "offers": [
            dataclasses.asdict(one) | {"fits": one.fits, "memory_bytes": one.memory.total} for one in offers
        ],
    }  # fmt: skip
