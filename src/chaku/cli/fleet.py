"""`chaku fleet`: the workers of a gateway, and the tokens with which they join."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

import click

from chaku.cli.help_page import group
from chaku.cli.keys import database_option
from chaku.cli.up import scale
from chaku.cli.watching import every_option
from chaku.config import DEFAULT_PORT, TOKEN_PREFIX, database_url, environment
from chaku.errors import UsageError
from chaku.http_out import Retries, Transport, read_json, refusal
from chaku.models.plan.memory_plan import gigabytes
from chaku.store.database import open_store
from chaku.store.keys import create

Command = TypeVar("Command", bound=Callable[..., Any])
HERE = f"http://127.0.0.1:{DEFAULT_PORT}"
KEY_VARIABLE = "OPENAI_API_KEY"


def _gateway_option(command: Command) -> Command:
    return click.option("--url", metavar="URL", default=HERE, show_default=True, help="Where the gateway is.")(command)


@group()
def fleet() -> None:
    """See and steer the workers of a gateway.

    If the gateway needs a key, set OPENAI_API_KEY: a key of scope metrics can look, one of scope admin can steer.
    """


fleet.add_command(scale)


@fleet.group()
def token() -> None:
    """Create the tokens with which workers join."""


@token.command(name="create")
@click.argument("name")
@database_option()
def create_token(name: str, database: str | None) -> None:
    """Create a join token, and print it this once.

    Run it where the gateway runs: both use one database. A join token adds workers and does nothing else. It does not
    make callers need a key. `chaku keys revoke NAME` ends it: its workers leave the gateway.
    """
    with open_store(database or database_url()) as store:
        new = create(store, name, now=datetime.now(UTC), scopes={"join"})
    click.echo(new.token)
    click.echo(f"Join token {name!r} is made. Keep it now: it is not stored and can't be shown again.", err=True)
    click.echo("On the worker's machine: CHAKU_JOIN_TOKEN=... chaku worker MODEL --join http://GATEWAY:8000", err=True)


@fleet.command()
@_gateway_option
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def status(url: str, as_json: bool) -> None:
    """List the workers and their states."""
    workers = _ask("GET", url, "/fleet")["workers"]
    if as_json:
        click.echo(json.dumps({"workers": workers}, indent=2))
    elif not workers:
        click.echo(f"no worker has joined {url}: chaku worker MODEL --join {url}", err=True)
    else:
        click.echo("\n".join(table_lines(workers, _width())))


@fleet.command()
@click.argument("name")
@_gateway_option
def drain(name: str, url: str) -> None:
    """Let a worker finish its requests, then end it.

    It gets no new ones from now on.
    """
    _ask_worker("POST", url, name, "drain")
    click.echo(f"{name} drains: it gets no new requests, and ends when it has none")


@fleet.command()
@click.argument("name")
@_gateway_option
def reload(name: str, url: str) -> None:
    """Restart the engine of a worker.

    Its running requests finish first.
    """
    _ask_worker("POST", url, name, "reload")
    click.echo(f"{name} reloads its model")


@fleet.command()
@click.argument("name")
@_gateway_option
def logs(name: str, url: str) -> None:
    """Print the last log lines of a worker."""
    for line in _ask_worker("GET", url, name, "logs")["lines"]:
        click.echo(line)


@fleet.command()
@_gateway_option
@every_option
def top(url: str, every_s: float) -> None:
    """Show the table of workers until Ctrl-C."""
    is_terminal = sys.stdout.isatty()
    while True:
        workers = _ask("GET", url, "/fleet")["workers"]
        head = f"{url}  {datetime.now():%H:%M:%S}  {len(workers)} worker{'s' * (len(workers) != 1)}"
        lines = [head, "", *(table_lines(workers, _width()) if workers else ())]
        if is_terminal:
            columns, rows = os.get_terminal_size()
            click.echo("\x1b[H\x1b[2J" + "\n".join(line[:columns] for line in lines[: rows - 1]))
        else:
            click.echo("\n".join(lines))
        time.sleep(every_s)


def _width() -> int | None:
    return os.get_terminal_size().columns if sys.stdout.isatty() else None


def table_lines(workers: Sequence[dict[str, Any]], width: int | None = None) -> list[str]:
    """The table of workers as text, a line for each; the last columns are left out where they don't fit `width`."""
    cells = [_cells(worker) for worker in workers]
    lines = [""] * (len(cells) + 1)
    for name in cells[0]:
        column = [name, *(row[name] for row in cells)]
        if lines[0] and width is not None and len(lines[0]) + 2 + max(map(len, column)) > width:
            break
        lines = [f"{line}  {cell}" if line else cell for line, cell in zip(lines, column, strict=True)]
        longest = max(map(len, lines))
        lines = [line.ljust(longest) for line in lines]
    return [line.rstrip() for line in lines]


def _cells(worker: dict[str, Any]) -> dict[str, str]:
    """By column, the most important ones first."""
    memory, slots = worker["memory_bytes"], worker["slots"]
    return {
        "WORKER": worker["name"],
        "STATE": worker["state"],
        "MODEL": ", ".join(worker["models"]),
        "RUNNING": f"{worker['running']} of {slots}" if slots else str(worker["running"]),
        "WAITING": str(worker["waiting"]),
        "TOK/S": f"{worker['tokens_per_s']:.0f}",
        "MEMORY": gigabytes(memory) if memory else "-",
        "BEAT": f"{worker['last_beat_s']:.1f} s",
        "UP": duration(worker["uptime_s"]),
        "DEVICE": worker["device"] or "-",
        "HOST": worker["host"] or "-",
        "VERSION": worker["version"],
    }


def duration(seconds: float) -> str:
    """Seconds in the largest unit that fits: 42 s, 7 min, 3 h, 2 d."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


def _ask_worker(method: str, url: str, name: str, what: str) -> Any:
    return _ask(method, url, f"/fleet/workers/{quote(name, safe='')}/{what}")


def _ask(method: str, url: str, path: str) -> Any:
    """The gateway's answer. Raises ChakuError as it answered, or as Transport does."""
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--url is {url!r}, which is not an address", fix=f"write it as --url {HERE}")
    key = environment(KEY_VARIABLE) or ""
    headers = {"Authorization": f"Bearer {key}"} if key.startswith(TOKEN_PREFIX) else {}

    async def ask() -> Any:
        once = Retries(limit=0, statuses=frozenset())
        transport = Transport(
            url.removesuffix("/").removesuffix("/v1"), who=f"the gateway at {url}", headers=headers, retries=once
        )
        try:
            async with transport.request(method, path) as response:
                if response.status >= 300:
                    raise await refusal(response)
                return await read_json(response, who=transport.who)
        finally:
            await transport.close()

    return asyncio.run(ask())
