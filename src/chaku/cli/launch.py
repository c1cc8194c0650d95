"""`chaku launch`: a run that gets over interruptions, on this host or as a job on spot machines. Parses and prints."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from chaku.errors import UsageError
from chaku.launch.rehearsal import Rehearsal
from chaku.launch.relaunch import Supervisor, train_command
from chaku.launch.sky import Cluster, render
from chaku.records import atomic_write, sha256_file
from chaku.train.config import is_hub_id, read_recipe, run_folder, train_config

if TYPE_CHECKING:
    from chaku.data.recipe import Recipe
    from chaku.launch.sky import Task

_FILE = click.Path(path_type=Path, dir_okay=False)
_ONLY_SKY = {
    "gpu": "--gpu", "count": "--count", "nodes": "--nodes", "spot": "--spot", "max_price": "--max-price",
    "infra": "--infra", "bucket": "--bucket", "disk_gb": "--disk-gb", "job_name": "--name", "secrets": "--secret",
    "wheel": "--wheel", "setup": "--setup", "output": "--output", "dry_run": "--dry-run",
}  # fmt: skip
_ONLY_LOCAL = {"processes": "--processes", "max_restarts": "--max-restarts", "seed": "--rehearse", "kills": "--kills"}


@click.group()
def launch() -> None:
    """Start runs that get over interruptions: here, or as jobs on spot machines."""


@launch.command()
@click.argument("recipe", type=_FILE)
@click.option("--on", "where", type=click.Choice(["local", "sky"]), required=True, help="This host, or SkyPilot.")
@click.option("--set", "settings", multiple=True, metavar="A.B=C", help="Change a value of the recipe; repeatable.")
@click.option("--processes", type=click.IntRange(1), help="local: processes that train together.  [1]")
@click.option("--max-restarts", type=click.IntRange(0), help="local: give up after so many.  [as long as it gets on]")
@click.option("--rehearse", "seed", type=int, metavar="SEED", help="local: kill the run at moments drawn from SEED.")
@click.option("--kills", type=click.IntRange(1), help="local: how often --rehearse kills.  [3]")
@click.option("--bucket", help="sky: where the runs are kept: s3://NAME[/FOLDER], gs://..., r2://... It must exist.")
@click.option("--gpu", help="sky: a GPU's name there, such as A100-80GB or H100.  [A100-80GB]")
@click.option("--count", type=click.IntRange(1), help="sky: GPUs of a node.  [8]")
@click.option("--nodes", type=click.IntRange(1), help="sky: machines that train together.  [1]")
@click.option("--spot/--on-demand", "spot", default=None, help="sky: kind of machine.  [--spot]")
@click.option("--max-price", type=float, metavar="DOLLARS", help="sky: most that one node may cost an hour.")
@click.option("--infra", multiple=True, metavar="CLOUD[/REGION[/ZONE]]", help="sky: a place to look; repeatable.")
@click.option("--disk-gb", type=click.IntRange(50), help="sky: local disk; checkpoints pass through it.  [500]")
@click.option("--name", "job_name", help="sky: the job's name.  [the recipe's]")
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="sky: a variable to hand on, by its name.")
@click.option("--wheel", type=_FILE, help="sky: install chaku from this file, not from the index.")
@click.option("--setup", help="sky: shell lines that install chaku, in place of ours.")
@click.option("-o", "--output", type=_FILE, help="sky: write the task file; submit nothing.")
@click.option("--dry-run", is_flag=True, default=None, help="sky: print the task file; submit nothing.")
def train(recipe: Path, where: str, settings: tuple[str, ...], **options: Any) -> None:
    """Train RECIPE and resume after every interruption, with --resume auto.

    \b
    local  starts `chaku train` here, alone or as torchrun would, and again after a kill or a lost process
    sky    renders a SkyPilot managed job (bucket, recovery, places, torchrun line) and submits it
    """

    given = {name for name, value in options.items() if value not in (None, ())}
    if wrong := sorted(given & (_ONLY_SKY if where == "local" else _ONLY_LOCAL).keys()):
        names = ", ".join({**_ONLY_SKY, **_ONLY_LOCAL}[name] for name in wrong)
        raise click.UsageError(f"{names} means nothing with --on {where}")
    read = read_recipe(recipe, settings)
    train_config(read)  # a mistake is told here, not on a machine that is paid for
    if where == "local":
        sys.exit(_local(recipe, settings, read, options))
    _sky(read, {name: options[name] for name in given})


def _local(recipe: Path, settings: tuple[str, ...], read: Recipe, options: dict[str, Any]) -> int:
    if options["kills"] and options["seed"] is None:
        raise click.UsageError("--kills says how often --rehearse kills: give its seed")
    folder = run_folder(read)
    rehearsal = None
    if options["seed"] is not None:
        rehearsal = Rehearsal(folder, options["seed"], options["kills"] or 3, _said)
    command = train_command(recipe, settings)
    supervisor = Supervisor(command, options["processes"] or 1, folder, _said, options["max_restarts"], rehearsal)
    code = supervisor.run()
    if code == 0 and rehearsal is not None:
        _said(f"rehearsal: {rehearsal.dealt} kills, {supervisor.restarts} restarts, and the run is through")
        for path in sorted((folder / "final").glob("*.safetensors")):
            click.echo(f"{sha256_file(path)}  {path}")
    return code


def _said(line: str) -> None:
    click.echo(f"launch: {line}", err=True)


def _sky(read: Recipe, options: dict[str, Any]) -> None:
    output, dry_run, name = options.pop("output", None), options.pop("dry_run", False), options.pop("job_name", None)
    if "bucket" not in options:
        raise click.UsageError("--on sky needs --bucket, where the runs are kept")
    if "HF_TOKEN" in os.environ and is_hub_id(read.base or ""):
        options["secrets"] = (*options.get("secrets", ()), "HF_TOKEN")
    task = render(read, Cluster(**options), name)
    if dry_run:
        click.echo(task.text, nl=False)
    elif output is not None:
        with atomic_write(output) as file:
            file.write(task.text.encode())
        click.echo(f"{output} holds the task; to submit it: {shlex.join(task.submission(output))}")
    else:
        _submit(task)


def _submit(task: Task) -> None:
    if shutil.which("sky") is None:
        raise UsageError(
            "SkyPilot's command `sky` is not on PATH",
            fix="install it by itself, it wants an older click: uv tool install 'skypilot[aws]', or pipx install;"
            " or write the file with -o task.yaml and submit it elsewhere",
        )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "task.yaml"
        file.write_text(task.text)
        code = subprocess.run(task.submission(file), check=False).returncode  # noqa: S603
    if code:
        raise UsageError(f"sky ended with exit code {code}", fix="its own message is above")
