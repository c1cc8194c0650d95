"""chaku audit: what admins changed, from the shell, the page and the API."""

from __future__ import annotations

import csv
import json
import sys
from datetime import datetime
from typing import Any

import click

from chaku import config
from chaku.cli.help_page import command
from chaku.cli.key_limits import MOMENT
from chaku.cli.keys import database_option, draw, require_database
from chaku.store.audit import AuditEntry, entries
from chaku.store.database import open_store

_FIELDS = ("time", "actor", "via", "action", "subject", "details")


@command("audit")
@click.option("--since", metavar="DATE", type=MOMENT, help="List from then on: 2026-01-31, or 30d.")
@click.option("--json", "as_json", is_flag=True, help="Print the changes as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the changes as CSV.")
@database_option()
def audit_log(since: datetime | None, as_json: bool, as_csv: bool, database: str | None) -> None:
    """List what admins changed, newest first.

    These are keys, visitors, exclusions in the arena, drained and reloaded workers, and the rules of a gateway.
    The list holds names and settings, and no contents.
    """
    require_database(database)
    with open_store(database or config.database_url()) as store:
        found = entries(store, since=since)
    if as_json:
        click.echo(json.dumps({"changes": [_as_json(entry) for entry in found]}))
    elif as_csv:
        lines = csv.writer(sys.stdout, lineterminator="\n")
        lines.writerow(_FIELDS)
        lines.writerows(_cells(entry, entry.time.isoformat()) for entry in found)
    elif not found:
        click.echo("Nothing was changed.", err=True)
    else:
        rows = [_cells(entry, f"{entry.time.astimezone():%Y-%m-%d %H:%M:%S}") for entry in found]
        draw(list(_FIELDS), rows, num_texts=len(_FIELDS))


def _as_json(entry: AuditEntry) -> dict[str, Any]:
    return {**vars(entry), "time": entry.time.isoformat()}


def _cells(entry: AuditEntry, time: str) -> list[str]:
    return [time, entry.actor, entry.via, entry.action, entry.subject, json.dumps(entry.details)]
