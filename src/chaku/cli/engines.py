"""`chaku engines`: which engines are usable here, and environments for those that live in one of their own."""

from __future__ import annotations

import shlex
import subprocess

import click

from chaku.cli.help_page import group
from chaku.cli.json_output import print_json
from chaku.engines.opening import ENGINES
from chaku.engines.servers import environments
from chaku.errors import UsageError


@group()
def engines() -> None:
    """List engines; install vLLM or SGLang."""


@engines.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
def list_engines(as_json: bool) -> None:
    """List engines, which are usable, and how to get others."""
    rows = []
    for kind in ENGINES.values():
        missing, environment = kind.missing(None), environments.installed(kind.name)
        rows.append({
            "engine": kind.name,
            "usable": missing is None,
            "what": kind.summary,
            "python": str(environment.python) if environment else None,
            "version": environment.version if environment else None,
            "missing": missing.reason if missing else None,
            "fix": missing.fix if missing else None,
        })  # fmt: skip
    if as_json:
        print_json(rows)
        return
    for row in rows:
        place = f"  ({row['version']} at {row['python']})" if row["python"] else ""
        click.echo(f"{row['engine']:<14}{'usable' if row['usable'] else 'missing':<9}{row['what']}{place}")
        if row["fix"]:
            click.echo(f"{'':<23}{row['missing']} -> {row['fix']}")


@engines.command("install")
@click.argument("engine", metavar="ENGINE")
@click.option(
    "--python", metavar="PYTHON", show_default="the one that runs chaku", help="Interpreter to make the environment of."
)
@click.option("--dry-run", is_flag=True, help="Print the commands, and run none.")
def install(engine: str, python: str | None, dry_run: bool) -> None:
    """Make the environment of ENGINE: vllm or sglang.

    It goes into chaku's cache, with a pinned version of the engine. An unfinished environment is not used. chaku makes
    it with uv if uv is on the PATH, otherwise with venv and pip. vLLM and SGLang take about 10 GB of disk.
    """
    package = environments.package_of(engine)
    commands = environments.install_commands(package, python)
    if dry_run:
        for command in commands:
            click.echo(shlex.join(command))
        return
    found = environments.installed(engine)
    if found is not None and found.version == package.version:
        click.echo(f"{package.title} {found.version} is installed: {found.python}")
        return
    environments.forget(package)
    for command in commands:
        click.echo(f"$ {shlex.join(command)}", err=True)
        try:
            code = subprocess.run(command, check=False).returncode  # noqa: S603
        except OSError as error:
            raise UsageError(f"can't run {command[0]}: {error.strerror}", fix="name another with --python") from None
        if code != 0:
            raise UsageError(
                f"{package.title} is not installed: {shlex.join(command)} ended with {code}",
                fix=f"mend what it says, then `chaku engines install {engine}` again",
            )
    click.echo(f"{package.title} {package.version} is installed: {environments.record(package).python}")
