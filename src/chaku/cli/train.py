"""`chaku train`: a recipe becomes a run. Parses, shows what will be trained on, calls `chaku.train`, draws progress."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from chaku.cli.data import show_sample
from chaku.cli.estimate import DEFAULT_GPUS, epochs, offers_of, print_job, print_offers
from chaku.cli.progress import training
from chaku.cli.training_set import training_set
from chaku.data.inspect.preview import samples
from chaku.data.recipe import differences
from chaku.errors import ModelError, UsageError
from chaku.models.sources import shape_of
from chaku.packages import needs
from chaku.train.config import read_recipe, run_folder
from chaku.train.estimate import job_of_rows
from chaku.train.prices import price_file, read_prices

if TYPE_CHECKING:
    from chaku.train.plan import Plan

_NUM_SAMPLES = 3


@click.command()
@click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False))
@click.option(
    "--set", "settings", multiple=True, metavar="A.B=C", help="Change a value of the recipe; repeat it for more."
)
@click.option("--dry-run", is_flag=True, help="Check and plan everything, train nothing.")
@click.option("--resume", type=click.Choice(["auto"]), help="Go on from the newest valid checkpoint, if there is one.")
@click.option(
    "--continue-from", metavar="RUN", help="Begin with the weights of another run (train.continue_from in the recipe)."
)
@click.option("--overwrite", is_flag=True, help="Delete what an earlier run of this name left, and start anew.")
@needs("train")
def train(
    recipe: Path, settings: tuple[str, ...], dry_run: bool, resume: str | None, continue_from: str | None,
    overwrite: bool,
) -> None:  # fmt: skip
    """Fine-tune a model as RECIPE (YAML: name, base, data, train) says; the result is OUTPUT/NAME/final.

    Raw files under `data: inputs:` are built into training rows first. The same command runs alone and under torchrun.
    SIGTERM saves and exits with 75; --resume auto goes on.
    """
    from chaku.train import run
    from chaku.train.plan import make_plan

    read = read_recipe(recipe, settings)
    if continue_from:
        read = read.model_copy(update={"train": {**read.train, "continue_from": continue_from}})
    is_rank_zero = os.environ.get("RANK", "0") == "0"
    folder = run_folder(read)
    if overwrite and resume:
        raise click.UsageError("--overwrite deletes what --resume goes on from")
    if overwrite and is_rank_zero and not dry_run:
        _delete(folder)
    data = training_set(read, is_rank_zero=is_rank_zero)
    plan = make_plan(read, data)
    if is_rank_zero:
        _show_plan(plan)
        _show_samples(data)
    if dry_run:
        if is_rank_zero:
            _show_cost(plan)
        return
    with training(is_rank_zero) as progress:
        final = run.execute(plan, progress, resume=resume is not None)
    if is_rank_zero:
        click.echo(f"{final} holds the model; {folder / 'log.jsonl'} how it came about (chaku runs show {folder})")


def _delete(folder: Path) -> None:
    """Only what a run wrote: an output folder that holds something else is left alone."""

    if not folder.exists():
        return
    if not (folder / "config.yaml").exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds something that is no run", fix="give the run another name")
    shutil.rmtree(folder)


def _show_plan(plan: Plan) -> None:
    from chaku.train.lineage import describe

    config, manifest = plan.config, plan.set_manifest
    facts = manifest["audit"]["facts"]
    click.echo(
        f"{plan.recipe.name}: {plan.base.name} on {plan.data}: {len(plan.rows):,} rows of"
        f" {manifest['pack_length']:,}, {facts['tokens']:,} tokens, {facts['trained_tokens']:,} of them trained"
    )
    click.echo(
        f"{config.method}, {config.precision}; {plan.total:,} steps of {config.batch_rows} rows, {epochs(config)};"
        f" lr {config.lr:g} {config.schedule}; template {manifest['template']['name']}"
    )
    if plan.parent is not None:
        for line in describe(plan.parent, manifest):
            click.echo(line)
    for warning in [*differences(plan.recipe, manifest), *manifest["audit"]["warnings"]]:
        click.echo(f"warning: {warning}")


def _show_cost(plan: Plan) -> None:
    """What the same run comes to on rented GPUs; silent about a base whose numbers are not here."""

    try:
        shape = dataclasses.replace(shape_of(str(plan.base.path)), name=plan.base.name)
    except ModelError as error:
        click.echo(f"no estimate: {error}")
        return
    job = job_of_rows(shape, plan.config, plan.rows, plan.set_manifest["pack_length"])
    prices = read_prices(price_file())
    click.echo()
    print_job(job)
    print_offers(offers_of(job, prices, DEFAULT_GPUS), prices)


def _show_samples(data: Path) -> None:

    console = Console(no_color=click.get_current_context().color is False, highlight=False)
    for sample in samples(data, _NUM_SAMPLES):
        show_sample(console, sample)
