"""`chaku train`: a recipe becomes a run. Parses, shows what will be trained on, calls `chaku.train`, draws progress."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from chaku.cli.data_preview import show_sample
from chaku.cli.estimate import DEFAULT_GPUS, epochs, offers_of, print_job, print_offers
from chaku.cli.help_page import Command, command
from chaku.cli.lines import say
from chaku.cli.progress.training import training
from chaku.cli.train_then import ThenEval
from chaku.cli.training_set import training_set
from chaku.data.inspect.preview import samples
from chaku.data.recipe import differences
from chaku.errors import ChakuError, ModelError, UsageError
from chaku.models.sources import shape_of
from chaku.packages import needs
from chaku.records import atomic_write
from chaku.train.config import read_recipe, run_folder
from chaku.train.estimate import job_of_rows
from chaku.train.presets import PRESETS
from chaku.train.prices import price_file, read_prices

if TYPE_CHECKING:
    from chaku.data.recipe import Recipe
    from chaku.train.plan import Plan

_NUM_SAMPLES = 3


_EXAMPLE = """\
# A recipe for `chaku train`. What stands here wins over the preset; `chaku train --presets` lists those.
name: my-first-run
base: smollm2-135m             # chaku pull smollm2-135m; or a folder, a .gguf, an id of the hub
data:                          # or the folder that `chaku data build` wrote
  inputs: [shares.jsonl]
train:
  preset: tiny                 # vicuna-7b, lora, qlora, ... on GPUs
  epochs: 3
  # lr: 1.0e-4
  # sample_prompts: ["Who are you?"]
"""


class _BareResume(Command):
    """A command whose `--resume` without a word means `--resume auto`, wherever it stands."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        words = []
        for at, word in enumerate(args):
            words.append("--resume=auto" if word == "--resume" and args[at + 1 : at + 2] != ["auto"] else word)
        return super().parse_args(ctx, words)


def _show_presets(ctx: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        width = max(map(len, PRESETS))
        for name, preset in PRESETS.items():
            click.echo(f"{name:<{width}}  {preset.meaning}")
        ctx.exit()


@command(cls=_BareResume)
@click.argument("recipe", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--init", is_flag=True, help="Write an example recipe to RECIPE, and stop.")
@click.option(
    "--presets",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_presets,
    help="List the presets, and stop.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="A.B=C", help="Change a value of the recipe; repeat it for more."
)
@click.option("--dry-run", is_flag=True, help="Check and plan everything, train nothing.")
@click.option(
    "--resume",
    show_default="auto",
    type=click.Choice(["auto"]),
    help="Resume from the newest valid checkpoint, if any.",
)
@click.option(
    "--continue-from", metavar="RUN", help="Begin with the weights of another run (train.continue_from in the recipe)."
)
@click.option("--overwrite", is_flag=True, help="Delete what an earlier run of this name left, and start again.")
@click.option(
    "--then",
    metavar="COMMAND",
    help="Compare the model with its base at the end: eval, or 'eval SUITE --judge MODEL' with options of `eval run`.",
)
def train(
    recipe: Path, init: bool, settings: tuple[str, ...], dry_run: bool, resume: str | None,
    continue_from: str | None, overwrite: bool, then: str | None,
) -> None:  # fmt: skip
    """Fine-tune a model as RECIPE says.

    RECIPE is a YAML file with name, base, data and train; the result is OUTPUT/NAME/final.

    Raw files under `data: inputs:` are built into training rows first. The same command runs alone and under torchrun.
    SIGTERM saves and exits with 75; --resume continues from there.
    """
    if init:
        _write_example(recipe)
        return
    evaluation = ThenEval.of(then) if then is not None else None
    read = _train(recipe, settings, dry_run=dry_run, resume=resume, continue_from=continue_from, overwrite=overwrite)
    if evaluation is not None and not dry_run and os.environ.get("RANK", "0") == "0":
        evaluation.carry_out(str(read.base), read.name, run_folder(read))


@needs("train")
def _train(
    recipe: Path, settings: tuple[str, ...], *, dry_run: bool, resume: str | None, continue_from: str | None,
    overwrite: bool,
) -> Recipe:  # fmt: skip
    from chaku.train import run
    from chaku.train.plan import make_plan
    from chaku.train.run_records import claim, is_finished, refuse_existing

    read = read_recipe(recipe, settings)
    if continue_from:
        read = read.model_copy(update={"train": {**read.train, "continue_from": continue_from}})
    is_rank_zero = os.environ.get("RANK", "0") == "0"
    folder = run_folder(read)
    if overwrite and resume:
        raise click.UsageError("--overwrite deletes what --resume continues")
    if overwrite and is_rank_zero and not dry_run:
        _delete(folder)
    if dry_run:
        _dry_run(recipe, read, is_rank_zero)
        return read
    if is_rank_zero and not resume:
        refuse_existing(folder)  # before a set is built for nothing
    data = training_set(read, is_rank_zero=is_rank_zero)
    plan = make_plan(read, data)
    if resume and is_finished(plan):
        if is_rank_zero:
            claim(plan, resume=True)
            say(f"{folder} is finished: {folder / 'final'} holds the model (chaku serve {folder})")
        return read
    if is_rank_zero:
        _show_plan(plan)
        _show_samples(plan)
    with training(is_rank_zero, plan.total) as progress:
        final = run.execute(plan, progress, resume=resume is not None)
    if is_rank_zero:
        say(f"{final} holds the model; {folder / 'log.jsonl'} how it came about (chaku runs show {folder})")
    return read


def _dry_run(recipe: Path, read: Recipe, is_rank_zero: bool) -> None:
    """Show what would be trained and what it costs. A set that is not built yet is built in a scratch folder."""
    from chaku.train.plan import make_plan

    with tempfile.TemporaryDirectory(prefix="chaku-dry-run-") as scratch:
        try:
            data = training_set(read, is_rank_zero=is_rank_zero, scratch=Path(scratch))
            plan = make_plan(read, data)
        except ChakuError as error:
            if scratch in f"{error.message}{error.fix}":  # that folder is gone when the person reads this
                error.message = re.sub(rf"{re.escape(scratch)}/\S+", "the set", error.message)
                error.fix = f"chaku data build --recipe {recipe} -o my-set, then chaku data audit my-set"
            raise
        if is_rank_zero:
            _show_plan(plan)
            _show_samples(plan)
            _show_cost(plan)


def _write_example(path: Path) -> None:
    if path.exists():
        raise UsageError(f"{path} exists", fix="name a new file")
    with atomic_write(path) as file:
        file.write(_EXAMPLE.encode())
    click.echo(f"{path} holds an example: name your base and files there, then chaku train {path} --dry-run")


def _delete(folder: Path) -> None:
    """Only what a run wrote: an output folder that holds something else is left alone."""

    if not folder.exists():
        return
    if not (folder / "config.yaml").exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds something that is not a run", fix="give the run another name")
    shutil.rmtree(folder)


def _show_plan(plan: Plan) -> None:
    from chaku.train.lineage import describe

    config, manifest = plan.config, plan.set_manifest
    facts = manifest["audit"]["facts"]
    say(
        f"{plan.recipe.name}: {plan.base.name} on {plan.data}: {len(plan.rows):,} rows of"
        f" {manifest['pack_length']:,}, {facts['tokens']:,} tokens, {facts['trained_tokens']:,} of them trained"
    )
    if config.objective == "dpo":
        pairs, settings = facts["pairs"], config.dpo
        details = [f"beta {settings.beta:g}"]
        details += [f"label smoothing {settings.label_smoothing:g}"] if settings.label_smoothing else []
        details += ["length-normalised"] if settings.length_normalised else []
        reference = plan.base.name if plan.parent is None else str(plan.parent.named or plan.parent.folder)
        say(
            f"dpo on {pairs['train']:,} preference pairs, {pairs['test']:,} held out; {', '.join(details)};"
            f" the reference is {reference}"
        )
    say(
        f"{config.method}, {config.precision}; {plan.total:,} steps of {config.batch_rows} rows, {epochs(config)};"
        f" lr {config.lr:g} {config.schedule}; template {manifest['template']['name']}"
    )
    if plan.parent is not None:
        for line in describe(plan.parent, manifest):
            say(line)
    for warning in [*differences(plan.recipe, manifest), *manifest["audit"]["warnings"]]:
        say(f"warning: {warning}")


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


def _show_samples(plan: Plan) -> None:
    part = "pairs-train" if plan.config.objective == "dpo" else "train"
    console = Console(no_color=click.get_current_context().color is False, highlight=False)
    for sample in samples(plan.data, _NUM_SAMPLES, part=part):
        show_sample(console, sample)
