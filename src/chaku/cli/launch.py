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

from chaku.cli.help_page import group
from chaku.errors import UsageError
from chaku.launch.rehearsal import Rehearsal
from chaku.launch.relaunch import Relauncher, train_command
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


@group()
def launch() -> None:
    """Train through interruptions, here or on spot machines."""


@launch.command(sections={"With --on local": "processes", "With --on sky": "bucket"})
@click.argument("recipe", type=_FILE)
@click.option("--on", "where", type=click.Choice(["local", "sky"]), required=True, help="This host, or SkyPilot.")
@click.option("--set", "settings", multiple=True, metavar="A.B=C", help="Change a value of the recipe; repeatable.")
@click.option(
    "--processes", metavar="N", show_default="1", type=click.IntRange(1), help="Processes that train together."
)
@click.option(
    "--max-restarts",
    metavar="N",
    show_default="as long as it makes progress",
    type=click.IntRange(0),
    help="Give up after so many.",
)
@click.option("--rehearse", "seed", type=int, metavar="SEED", help="Kill the run at moments drawn from SEED.")
@click.option("--kills", metavar="N", show_default="3", type=click.IntRange(1), help="How often --rehearse kills.")
@click.option(
    "--bucket",
    metavar="URL",
    help="Where the runs are kept: s3://NAME[/FOLDER], gs://..., r2://... It must exist.",
)
@click.option("--gpu", metavar="GPU", show_default="A100-80GB", help="A GPU's name there, such as A100-80GB or H100.")
@click.option("--count", metavar="N", show_default="8", type=click.IntRange(1), help="GPUs of a node.")
@click.option("--nodes", metavar="N", show_default="1", type=click.IntRange(1), help="Machines that train together.")
@click.option("--spot/--on-demand", "spot", show_default="--spot", default=None, help="Kind of machine.")
@click.option("--max-price", type=float, metavar="DOLLARS", help="Most that one node may cost per hour.")
@click.option("--infra", multiple=True, metavar="CLOUD[/REGION[/ZONE]]", help="Where to look for machines; repeatable.")
@click.option(
    "--disk-gb",
    metavar="GB",
    show_default="500",
    type=click.IntRange(50),
    help="Local disk; checkpoints pass through it.",
)
@click.option("--name", "job_name", metavar="NAME", show_default="the recipe's", help="The job's name.")
@click.option("--secret", "secrets", multiple=True, metavar="NAME", help="Name of a variable to pass on.")
@click.option("--wheel", metavar="FILE", type=_FILE, help="Install chaku from this file, not from the index.")
@click.option("--setup", metavar="SHELL", help="Shell lines that install chaku, in place of ours.")
@click.option("-o", "--output", metavar="FILE", type=_FILE, help="Write the task file; submit nothing.")
@click.option("--dry-run", is_flag=True, default=None, help="Print the task file; submit nothing.")
def train(recipe: Path, where: str, settings: tuple[str, ...], **options: Any) -> None:
    """Train RECIPE, and resume after every interruption.

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
    relauncher = Relauncher(command, options["processes"] or 1, folder, _said, options["max_restarts"], rehearsal)
    code = relauncher.run()
    if code == 0 and rehearsal is not None:
        _said(f"rehearsal: {rehearsal.dealt} kills, {relauncher.restarts} restarts, and the run is through")
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
