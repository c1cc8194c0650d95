"""`chaku train`: a recipe becomes a run. Parses, shows what will be trained on, calls `chaku.train`, draws progress."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from chaku.data.recipe import Recipe
    from chaku.train.log import StepRecord
    from chaku.train.run import Plan

_PACKAGES = ("torch", "transformers", "safetensors", "pyarrow", "tokenizers", "jinja2", "peft")
_NUM_SAMPLES = 3
_LINE_EVERY_S = 5.0


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
def train(
    recipe: Path, settings: tuple[str, ...], dry_run: bool, resume: str | None, continue_from: str | None,
    overwrite: bool,
) -> None:  # fmt: skip
    """Fine-tune a model as RECIPE (YAML: name, base, data, train) says; the result is OUTPUT/NAME/final.

    Raw files under `data: inputs:` are built into training rows first. The same command runs alone and under torchrun.
    SIGTERM saves and exits with 75; --resume auto goes on.
    """
    _require_packages()
    from chaku.train import run
    from chaku.train.config import read_recipe

    read = read_recipe(recipe, settings)
    if continue_from:
        read = read.model_copy(update={"train": {**read.train, "continue_from": continue_from}})
    leads = os.environ.get("RANK", "0") == "0"
    folder = run.run_folder(read)
    if overwrite and resume:
        raise click.UsageError("--overwrite deletes what --resume goes on from")
    if overwrite and leads and not dry_run:
        _delete(folder)
    data = _data(read, folder, leads)
    made = run.plan(read, data)
    if leads:
        _show_plan(made)
        _show_samples(data)
    if dry_run:
        return
    final = run.execute(made, _Progress(leads), resume=resume is not None)
    if leads:
        click.echo(f"{final} holds the model; {folder / 'log.jsonl'} how it came about (chaku runs show {folder})")


def _require_packages() -> None:
    import importlib.util

    from chaku.errors import UsageError

    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"training needs {', '.join(missing)}", fix="pip install 'chaku[data,train]'")


def _delete(folder: Path) -> None:
    """Only what a run wrote: an output folder that holds something else is left alone."""
    import shutil

    from chaku.errors import UsageError

    if not folder.exists():
        return
    if not (folder / "config.yaml").exists() and any(folder.iterdir()):
        raise UsageError(f"{folder} holds something that is no run", fix="give the run another name")
    shutil.rmtree(folder)


def _data(read: Recipe, folder: Path, leads: bool) -> Path:
    """The folder of the built set; raw files are built beside the run first, by one process."""
    from chaku.train.config import data_config

    config = data_config(read)
    if isinstance(config, Path):
        return config
    from chaku.cli.data_progress import drawn
    from chaku.data.build import build
    from chaku.train.hub_base import at_hub
    from chaku.train.model import find_base

    if leads and read.base == config.tokenizer:
        at_hub(find_base(read.base), folder)  # its tokenizer, where it is on the hub
    target = folder.with_name(f"{folder.name}-data")
    if leads:
        with drawn() as watcher:
            built = build(config, target, name=read.name, watcher=watcher)
        click.echo(f"{target}: {'built before' if built.was_there else 'built'}", err=True)
        return target
    while not (target / "manifest.json").exists():
        time.sleep(0.5)
    return target


def _show_plan(made: Plan) -> None:
    from chaku.train.lineage import describe

    config, manifest = made.config, made.set_manifest
    facts = manifest["audit"]["facts"]
    click.echo(
        f"{made.recipe.name}: {made.base.name} on {made.data}: {len(made.rows):,} rows of"
        f" {manifest['pack_length']:,}, {facts['tokens']:,} tokens, {facts['trained_tokens']:,} of them trained"
    )
    click.echo(
        f"{config.method}, {config.precision}; {made.total:,} steps of {config.batch_rows} rows,"
        f" {config.epochs} epochs; lr {config.lr:g} {config.schedule}; template {manifest['template']['name']}"
    )
    if made.parent is not None:
        for line in describe(made.parent, manifest):
            click.echo(line)
    for warning in made.set_manifest["audit"]["warnings"]:
        click.echo(f"warning: {warning}")


def _show_samples(data: Path) -> None:
    from rich.console import Console

    from chaku.cli.data import show_sample
    from chaku.data.preview import samples

    console = Console(no_color=click.get_current_context().color is False, highlight=False)
    for sample in samples(data, _NUM_SAMPLES):
        show_sample(console, sample)


class _Progress:
    """A line for every step on a terminal, now and then elsewhere; with the time that is left."""

    def __init__(self, leads: bool) -> None:
        self.leads = leads
        self.spoke = 0.0
        self.first: tuple[int, float] | None = None

    def said(self, line: str) -> None:
        if self.leads:
            click.echo(line, err=True)

    def stepped(self, record: StepRecord, total: int) -> None:
        now = time.monotonic()
        self.first = self.first or (record.step, now - record.seconds)
        is_last = record.step == total
        if not self.leads or (now - self.spoke < _LINE_EVERY_S and not is_last):
            return
        self.spoke = now
        rate = (now - self.first[1]) / (record.step - self.first[0] + 1)
        click.echo(f"{_line(record, total)}, {_duration(rate * (total - record.step))} left", err=True)


def _line(record: StepRecord, total: int) -> str:
    parts: dict[str, Any] = {
        "loss": f"{record.loss:.4f}", "held out": record.heldout_loss and f"{record.heldout_loss:.4f}",
        "lr": f"{record.lr:.2e}", "gradient": f"{record.grad_norm:.2f}",
        "dollars": record.dollars and f"{record.dollars:.2f}",
    }  # fmt: skip
    said = ", ".join(f"{name} {value}" for name, value in parts.items() if value is not None)
    return f"step {record.step:,} of {total:,}: {said}, {record.tokens_per_s:,.0f} tokens/s"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"
