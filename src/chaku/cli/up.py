"""`chaku up`, `chaku down` and `chaku fleet scale`: a fleet from one file. Parses, calls and prints."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

import click

from chaku import logs, packages
from chaku.cli.help_page import command
from chaku.config import JOIN_TOKEN_VARIABLE, database_url, environment
from chaku.errors import ChakuError, UsageError
from chaku.launch.fleet import clusters
from chaku.launch.fleet.clusters import CLUSTERS
from chaku.launch.fleet.keeper import Keeper
from chaku.launch.fleet.plan import plan_lines
from chaku.launch.fleet.processes import LocalWorkers, Workers, tail
from chaku.launch.fleet.ray_workers import RayWorkers
from chaku.launch.fleet.record import Record, find_up, record_of
from chaku.launch.fleet.spec import FleetConfig, Place, read_fleet
from chaku.store.database import open_store
from chaku.store.keys import create, list_keys, revoke

_FILE = click.Path(path_type=Path, dir_okay=False)
_POLL_S = 0.1
_DOWN_GRACE_S = 30.0
_place_option = click.option(
    "--on",
    "place",
    type=click.Choice(get_args(Place)),
    default="local",
    show_default=True,
    help="Where workers run: as child processes, on Ray, on Kubernetes, or as SkyPilot jobs.",
)


@command()
@click.argument("file", type=_FILE, required=False)
@_place_option
@click.option("--dry-run", is_flag=True, help="Print the plan and what it costs per hour; start nothing.")
@click.option("--detach", is_flag=True, help="Return once the fleet is up; `chaku down` ends it.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of fleet.yaml, and stop.")
def up(file: Path | None, place: Place, dry_run: bool, detach: bool, schema: bool) -> None:
    """Start the gateway and the workers that FILE names.

    With --on local or ray it runs until Ctrl-C or `chaku down`, and restarts a worker that ends by itself.
    """
    if schema:
        click.echo(json.dumps(FleetConfig.model_json_schema(), indent=2))
        return
    if file is None:
        raise click.UsageError("name the file: chaku up fleet.yaml")
    fleet = read_fleet(file)
    if dry_run:
        click.echo("\n".join(plan_lines(fleet, place)), err=place in CLUSTERS)
        if place in CLUSTERS:
            click.echo(clusters.rendered(fleet, place), nl=False)
    elif place in CLUSTERS:
        record = record_of(fleet.name)
        with record.held():
            if place == "sky" and record.state().get("is_elsewhere"):  # kubectl changes what is there
                raise UsageError(f"fleet {fleet.name!r} is up already", fix=f"chaku down {fleet.name}")
            clusters.start(fleet, place, record)
        click.echo(f"fleet {fleet.name} is handed over; `chaku down {fleet.name}` ends it", err=True)
    elif detach:
        _detach(file, fleet, place)
    else:
        _keep(fleet, place)


def _keep(fleet: FleetConfig, place: Place) -> None:
    logs.set_up("WARNING")
    record = record_of(fleet.name)
    with record.held():
        record.begin(fleet, place)
        with _join_token(fleet) as token:
            asyncio.run(_run(fleet, place, record, token))
        record.tell({"place": place, "workers": {}})
    click.echo(f"fleet {fleet.name} is down", err=True)


async def _run(fleet: FleetConfig, place: Place, record: Record, token: str) -> None:
    workers: Workers
    if place == "ray":
        packages.require("ray")
        workers = RayWorkers(fleet, token)
    else:
        workers = LocalWorkers(record.folder, token)
    keeper = Keeper(fleet, place, workers, record, lambda line: click.echo(line, err=True))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, keeper.stop)
    await keeper.run()


@contextlib.contextmanager
def _join_token(fleet: FleetConfig) -> Iterator[str]:
    """CHAKU_JOIN_TOKEN, or a token made for this fleet, which is revoked when the block ends."""
    if (given := environment(JOIN_TOKEN_VARIABLE)) is not None:
        yield given
        return
    beginning = f"fleet {fleet.name} "
    with open_store(fleet.gateway.database or database_url()) as store:
        for key in list_keys(store):  # of a fleet whose keeper was killed
            if key.name.startswith(beginning) and key.revoked_at is None and key.scopes == {"join"}:
                revoke(store, key.id, now=datetime.now(UTC))
        new = create(store, beginning + secrets.token_hex(4), now=datetime.now(UTC), scopes={"join"})
        try:
            yield new.token
        finally:
            revoke(store, new.key.id, now=datetime.now(UTC))


def _detach(file: Path, fleet: FleetConfig, place: Place) -> None:
    """Start the keeper as a process of its own, and wait until it is up. Raises UsageError with its last lines."""
    record = record_of(fleet.name)
    with record.held():
        record.logs.mkdir(parents=True, exist_ok=True)
        record.tell({})
    log = record.logs / "keeper.log"
    with log.open("wb") as output:
        keeper = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "chaku", "up", str(file), "--on", place],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    while not (state := record.state()).get("is_ready"):
        if (code := keeper.poll()) is not None:
            said = "\n  ".join(tail(log))
            raise UsageError(f"fleet {fleet.name!r} ended with code {code}:\n  {said}", fix=f"its logs: {record.logs}")
        time.sleep(_POLL_S)
    for line in log.read_text().splitlines():
        click.echo(line, err=True)
    failed = [name for name, row in state["workers"].items() if row["state"] == "failed"]
    if failed:
        raise ChakuError(
            f"{', '.join(failed)} can't run; the others serve",
            fix=f"their logs are in {record.logs}",
        )


@command()
@click.argument("fleet", required=False)
def down(fleet: str | None) -> None:
    """End a fleet: its workers finish their requests first.

    FLEET is its name or its file. It may be left out where one fleet is up.
    """
    record = find_up(fleet)
    if (place := record.state()["place"]) in CLUSTERS:
        clusters.end(record.fleet(), place, record)
    else:
        _end_keeper(record)
    click.echo(f"fleet {record.name} is down")


def _end_keeper(record: Record) -> None:
    pid = record.state().get("pid")
    patience_s = record.fleet().drain_s + _DOWN_GRACE_S
    if pid is None:
        raise ChakuError(f"fleet {record.name!r} is just starting", fix="try again in a moment")
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + patience_s
    while record.is_held():
        if time.monotonic() > deadline:
            raise ChakuError(f"process {pid} has not ended after {patience_s:.0f} s", fix=f"kill -9 {pid}")
        time.sleep(_POLL_S)


@command()
@click.argument("model")
@click.argument("number", metavar="N", type=click.IntRange(0, 1000))
@click.option("--fleet", "name", metavar="NAME", show_default="the one that is up", help="Fleet, by name or file.")
def scale(model: str, number: int, name: str | None) -> None:
    """Change how many workers of a fleet serve MODEL.

    Workers that go finish their requests first.
    """
    record = find_up(name)
    fleet, place = record.fleet(), record.state().get("place")
    pool = fleet.pool(model)
    if place in CLUSTERS:
        clusters.scale(fleet, place, record, pool, number)
    elif pool.max_replicas is not None:
        raise UsageError(
            f"{model!r} is scaled by its queue, from {pool.replicas} to {pool.max_replicas} workers",
            fix="take max_replicas out of the file to set the number by hand",
        )
    else:
        record.want(model, number)
    click.echo(f"{model}: {number} {'worker' if number == 1 else 'workers'} wanted; `chaku fleet status` shows them")
