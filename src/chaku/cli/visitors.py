"""chaku visitors: the guests of the page, and the users of a proxy, who have no key."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import click

from chaku import config
from chaku.cli.help_page import group
from chaku.cli.key_limits import changed, guest_limit_options, limits_in_words
from chaku.cli.keys import database_option, draw, require_database, shown_day
from chaku.errors import UsageError
from chaku.store import guests
from chaku.store.database import Store, open_store
from chaku.store.keys import Key


def _open(database: str | None) -> Store:
    require_database(database)
    return open_store(database or config.database_url())


@group()
def visitors() -> None:
    """List, limit, block and delete visitors without a key."""


@visitors.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print the visitors as JSON.")
@database_option()
def list_command(as_json: bool, database: str | None) -> None:
    """List guests and users of a proxy, newest visit first."""
    with _open(database) as store:
        found = guests.list_guests(store)
    if as_json:
        click.echo(json.dumps({"visitors": [_as_json(guest) for guest in found]}))
        return
    if not found:
        click.echo("No guests yet: `chaku serve --guests` lets them in.", err=True)
        return
    rows = [
        [
            guest.name,
            guest.kind,
            "blocked" if guest.revoked_at else "active",
            shown_day(guest.last_used_at),
            limits_in_words(guest),
        ]
        for guest in found
    ]
    draw(["name", "kind", "state", "last seen", "limits of its own"], rows, num_texts=5)


@visitors.command()
@click.argument("which", metavar="NAME_OR_ID")
@guest_limit_options
@database_option()
def limit(which: str, database: str | None, **limits: Any) -> None:
    """Set limits for one visitor.

    They replace the gateway's limits. The word none restores the gateway's limit: --tokens-per-day none.
    """
    given = changed(limits)
    if not given:
        raise UsageError("nothing is to be changed", fix="name an option, such as --tokens-per-day 1000")
    with _open(database) as store:
        guest = guests.set_limits(store, which, given)
    click.echo(f"{guest.name}: {limits_in_words(guest)}")


@visitors.command()
@click.argument("which", metavar="NAME_OR_ID")
@click.option("--undo", is_flag=True, help="Let the visitor in again.")
@database_option()
def block(which: str, undo: bool, database: str | None) -> None:
    """Keep a visitor out. The chats stay."""
    with _open(database) as store:
        guest = guests.block(store, which, now=None if undo else datetime.now(UTC))
    click.echo(f"{guest.name} is let in again." if undo else f"{guest.name} is blocked.")


@visitors.command()
@click.argument("which", metavar="NAME_OR_ID")
@database_option()
def delete(which: str, database: str | None) -> None:
    """Delete a visitor with the chats, battles and votes. This can't be undone."""
    with _open(database) as store:
        guest, gone = guests.delete(store, which)
    click.echo(f"{guest.name} is deleted, with its chats, battles ({gone.num_battles}) and votes ({gone.num_votes}).")
    if gone.snapshots:
        click.echo(f"Ratings and training data that were written before hold some of it: {', '.join(gone.snapshots)}")


def _as_json(guest: Key) -> dict[str, Any]:
    moments = {
        "created_at": guest.created_at,
        "last_seen_at": guest.last_used_at,
        "blocked_at": guest.revoked_at,
    }
    return {
        "id": guest.id,
        "name": guest.name,
        "kind": guest.kind,
        "limits": guest.limits.model_dump(mode="json", exclude_defaults=True),
        **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
    }
