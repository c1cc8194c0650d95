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
from chaku.store.database import open_store
from chaku.store.keys import create

Command = TypeVar("Command", bound=Callable[..., Any])
HERE = f"http://127.0.0.1:{DEFAULT_PORT}"
KEY_VARIABLE = "OPENAI_API_KEY"
COLUMNS = (
    "WORKER",
    "STATE",
    "MODEL",
    "HOST",
    "DEVICE",
    "SLOTS",
    "RUNNING",
    "WAITING",
    "TOK/S",
    "MEMORY",
    "UP",
    "BEAT",
    "VERSION",
)


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
        click.echo("\n".join(table_lines(workers)))


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
        lines = [f"{url}  {datetime.now():%H:%M:%S}  {len(workers)} workers", "", *table_lines(workers)]
        if is_terminal:
            columns, rows = os.get_terminal_size()
            click.echo("\x1b[H\x1b[2J" + "\n".join(line[:columns] for line in lines[: rows - 1]))
        else:
            click.echo("\n".join(lines))
        time.sleep(every_s)


def table_lines(workers: Sequence[dict[str, Any]]) -> list[str]:
    """The table of workers as text, a line for each."""
    rows = [COLUMNS, *(_cells(worker) for worker in workers)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    return ["  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _cells(worker: dict[str, Any]) -> tuple[str, ...]:
    memory = worker["memory_bytes"]
    return (
        worker["name"],
        worker["state"],
        ", ".join(worker["models"]),
        worker["host"] or "-",
        worker["device"] or "-",
        str(worker["slots"] or "-"),
        str(worker["running"]),
        str(worker["waiting"]),
        f"{worker['tokens_per_s']:.0f}",
        f"{memory / 2**20:,.0f} MB" if memory else "-",
        duration(worker["uptime_s"]),
        f"{worker['last_beat_s']:.1f} s",
        worker["version"],
    )


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
