"""chaku keys: create, list, edit and revoke the API keys that the gateway accepts, and show what was used."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.console import Console
from rich.table import Table

from chaku import config
from chaku.cli.help_page import group
from chaku.cli.key_limits import MOMENT, UNCHANGED, changed, limit_options, limits_in_words, shown_number
from chaku.cli.lines import say
from chaku.errors import UsageError
from chaku.policies import Limits
from chaku.store.database import open_store
from chaku.store.keys import CALLER_SCOPES, DEFAULT_SCOPES, SCOPES, list_keys
from chaku.store.keys import create as create_key
from chaku.store.keys import edit as edit_key
from chaku.store.keys import revoke as revoke_key
from chaku.store.usage import SUMMED, By, totals

# Anything heavier is imported inside the commands: `chaku --help` loads this module.
if TYPE_CHECKING:
    from chaku.store.database import Store
    from chaku.store.keys import Key
    from chaku.store.usage import Total

Command = TypeVar("Command", bound=Callable[..., Any])


def database_option(meaning: str = "SQLAlchemy URL.") -> Callable[[Command], Command]:
    """--database, as all commands that open the store write it."""
    where = "CHAKU_DATABASE, or an SQLite file in the data folder"
    return click.option("--database", show_default=where, metavar="URL", help=meaning)


def _open(database: str | None) -> Store:
    return open_store(database or config.database_url())


def require_database(database: str | None) -> None:
    """A path that was mistyped must not become a new, empty database."""
    path = (database or "").removeprefix("sqlite:///")
    if database and path != database and path and not Path(path).exists():
        raise UsageError(f"there is no database {path}", fix="check --database; `chaku doctor` shows the default one")


@group()
def keys() -> None:
    """Create, edit and revoke API keys; show their use."""


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    metavar="SCOPE",
    multiple=True,
    show_default="infer and page",
    type=click.Choice(list(SCOPES)),
    help="What its holder may do; repeatable.",
)
@limit_options
@click.option("--json", "as_json", is_flag=True, help="Print the key as JSON.")
@database_option()
def create(
    name: str,
    scopes: tuple[str, ...],
    expires_at: datetime | None,
    as_json: bool,
    database: str | None,
    **limits: Any,
) -> None:
    """Create a key, and print its token this once.

    The token alone goes to standard output: TOKEN=$(chaku keys create NAME) keeps it.

    A scope is a right: infer calls the API, page logs in to the page, metrics reads /metrics and the table of workers,
    join adds workers, and admin does all but join, and drains, reloads and reads the logs of workers.
    """

    with _open(database) as store:
        now = datetime.now(UTC)
        active = [key for key in list_keys(store) if not key.revoked_at and not key.has_expired(now)]
        is_first = not any(key.scopes & CALLER_SCOPES for key in active)
        new = create_key(
            store,
            name,
            now=now,
            scopes=scopes or DEFAULT_SCOPES,
            expires_at=None if expires_at is UNCHANGED else expires_at,
            limits=Limits(**changed(limits)),
        )
    if as_json:
        click.echo(json.dumps({"token": new.token, **_key_as_json(new.key)}))
        return
    click.echo(new.token)
    say(f"Key {name!r} is made. Keep the token now: it is not stored and can't be shown again.", err=True)
    if not new.key.scopes & CALLER_SCOPES:
        return
    if is_first:
        say(
            "From now on, every gateway on this database asks callers for a key and visitors of the page for a login,"
            " until the last key is revoked.",
            err=True,
        )
    click.echo(f"To use it in the terminal: OPENAI_API_KEY={new.key.prefix}... chaku chat", err=True)


@keys.command(name="list")
@click.option("--json", "as_json", is_flag=True, help="Print the keys as JSON.")
@click.option(
    "--usage", "with_usage", is_flag=True, help="Add requests, and tokens of prompts, of cached prompts and of answers."
)
@database_option()
def list_command(as_json: bool, with_usage: bool, database: str | None) -> None:
    """List the keys, revoked ones too.

    With --usage, adds what was used with them.
    """

    require_database(database)
    with _open(database) as store:
        made = list_keys(store)
        used = {total.key_id: total for total in totals(store, by=["key"])} if with_usage else {}
    if as_json:
        listed = [{**_key_as_json(key), **(_usage_as_json(used.get(key.id)) if with_usage else {})} for key in made]
        without = {"without_key": _usage_as_json(used.get(None))["usage"]} if with_usage else {}
        click.echo(json.dumps({"keys": listed, **without}))
        return
    if not made and None not in used:
        click.echo("No keys yet: make one with `chaku keys create NAME`.", err=True)
        return
    head, rows = ["name", "token", "state", "last used"], [_key_cells(key) for key in made]
    if not with_usage:
        rows = [
            [*row, " ".join(sorted(key.scopes)), shown_day(key.created_at), limits_in_words(key)]
            for row, key in zip(rows, made, strict=True)
        ]
        draw([*head, "scopes", "made", "limits"], rows, num_texts=7)
        return
    rows = [row + _usage_cells(used.get(key.id)) for row, key in zip(rows, made, strict=True)]
    if keyless := used.get(None):
        rows.append(["(no key)", "", "", shown_day(keyless.last_used_at), *_usage_cells(keyless)])
    draw([*head, "requests", "failed", "prompt", "cached", "answer"], rows)


@keys.command()
@click.argument("which", metavar="NAME_OR_ID_OR_PREFIX")
@click.option(
    "--scope",
    "scopes",
    metavar="SCOPE",
    multiple=True,
    show_default="as before",
    type=click.Choice(list(SCOPES)),
    help="What its holder may do, instead of what it may do now.",
)
@limit_options
@database_option()
def edit(which: str, scopes: tuple[str, ...], expires_at: Any, database: str | None, **limits: Any) -> None:
    """Change scopes, expiry or limits of a key. Running gateways know within about a second.

    What is not named stays. The word none lifts a limit: --tokens-per-day none.
    """
    given = changed(limits)
    if not scopes and expires_at is UNCHANGED and not given:
        raise UsageError("nothing is to be changed", fix="name an option, such as --tokens-per-day 100000")
    with _open(database) as store:
        key = edit_key(
            store,
            which,
            scopes=scopes or None,
            expires_at="keep" if expires_at is UNCHANGED else expires_at,
            limits=given,
        )
    click.echo(f"Key {key.name!r} ({key.prefix}…) is changed: {limits_in_words(key)}.")


@keys.command()
@click.option(
    "--by",
    metavar="WHAT",
    multiple=True,
    default=("key",),
    show_default="key",
    type=click.Choice(["key", "model", "day"]),
    help="Split by key, model or day (UTC); repeatable.",
)
@click.option("--since", metavar="DATE", type=MOMENT, help="Count from then on: 2026-01-31, or 30d.")
@click.option("--json", "as_json", is_flag=True, help="Print the sums as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print the sums as CSV.")
@database_option()
def usage(by: tuple[By, ...], since: datetime | None, as_json: bool, as_csv: bool, database: str | None) -> None:
    """Show requests, tokens and dollars that were used.

    Dollars are at the price (--price of `chaku serve`) that a model had when a request came.
    """
    require_database(database)
    with _open(database) as store:
        names = {key.id: key.name for key in list_keys(store)}
        sums = totals(store, by=by, since=since)
    rows = [_usage_row(total, by, names) for total in sums]
    if as_json:
        click.echo(json.dumps({"usage": rows}))
        return
    head = [*by, *_USAGE_FIELDS]
    if as_csv:
        lines = csv.DictWriter(sys.stdout, head, lineterminator="\n")
        lines.writeheader()
        lines.writerows(rows)
        return
    if not rows:
        click.echo("Nothing was used.", err=True)
        return
    cells = [
        [*(row[name] or "(no key)" for name in by), *(shown_number(row[name]) for name in head[len(by) :])]
        for row in rows
    ]
    draw([*by, "requests", "failed", "prompt", "cached", "answer", "dollars"], cells, num_texts=len(by))


def _usage_row(total: Total, by: Sequence[By], names: Mapping[str, str]) -> dict[str, Any]:
    split = {"key": names.get(total.key_id or ""), "model": total.model, "day": total.day and total.day.isoformat()}
    return {**{name: split[name] for name in by}, **_usage_as_json(total)["usage"]}


@keys.command()
@click.argument("which", metavar="NAME_OR_ID_OR_PREFIX")
@database_option()
def revoke(which: str, database: str | None) -> None:
    """Revoke a key for good. Running gateways refuse it within about a second."""

    with _open(database) as store:
        key = revoke_key(store, which, now=datetime.now(UTC))
    click.echo(f"Key {key.name!r} ({key.prefix}…) is revoked.")


def _key_as_json(key: Key) -> dict[str, Any]:
    moments = {name: getattr(key, name) for name in ("created_at", "last_used_at", "revoked_at", "expires_at")}
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": sorted(key.scopes),
        "limits": key.limits.model_dump(mode="json", exclude_defaults=True),
        **{name: moment.isoformat() if moment else None for name, moment in moments.items()},
    }


_USAGE_FIELDS = ("num_requests", "num_failed", *SUMMED)


def _usage_as_json(total: Total | None) -> dict[str, Any]:
    return {"usage": {name: getattr(total, name) if total else 0 for name in _USAGE_FIELDS}}


def _key_cells(key: Key) -> list[str]:
    state = "revoked" if key.revoked_at else "expired" if key.has_expired(datetime.now(UTC)) else "active"
    return [key.name, f"{key.prefix}…", state, shown_day(key.last_used_at)]


def _usage_cells(total: Total | None) -> list[str]:
    return [shown_number(getattr(total, name) if total else 0) for name in _USAGE_FIELDS[:5]]


def shown_day(moment: datetime | None) -> str:
    """The day, in the time of this machine."""
    return moment.astimezone().strftime("%Y-%m-%d") if moment else "never"


def draw(head: list[str], rows: list[list[str]], *, num_texts: int = 4) -> None:
    """A table on a terminal; tab-separated lines with a head elsewhere."""
    if not _is_terminal():
        for row in [head, *rows]:
            click.echo("\t".join(row))
        return

    table = Table(*head, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns[num_texts:]:
        column.justify = "right"
    for row in rows:
        table.add_row(*row)
    Console(markup=False, emoji=False, highlight=False).print(table)  # a name is not markup


def _is_terminal() -> bool:
    return sys.stdout.isatty()
