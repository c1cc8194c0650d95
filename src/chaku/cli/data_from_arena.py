"""`chaku data from-arena`: votes, thumbs, edits and regenerations of the store become files for `data build`."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import click

from chaku import config
from chaku.cli.help_page import command
from chaku.cli.keys import database_option, require_database
from chaku.data.arena_snapshot import FACTS, write_snapshot
from chaku.records import sha256_file
from chaku.store.database import open_store
from chaku.store.donations import KINDS, note_snapshot, read_donations


@command("from-arena")
@click.option("--votes", is_flag=True, help="Take arena votes: the preferred answer beside the other one.")
@click.option("--thumbs", is_flag=True, help="Take thumbs: good answers, and pairs of a good and a bad one.")
@click.option("--edits", is_flag=True, help="Take answers that a person rewrote, beside the model's.")
@click.option("--regenerations", is_flag=True, help="Take answers that were continued, beside those before them.")
@click.option(
    "-o",
    "--output",
    "folder",
    metavar="FOLDER",
    show_default="arena-DATE",
    type=click.Path(path_type=Path),
    help="Folder to write.",
)
@database_option("Where the chats and votes are.")
def from_arena(folder: Path | None, database: str | None, **chosen: bool) -> None:
    """Write what visitors said as training data.

    Without a choice, takes votes, thumbs, edits and regenerations. Takes only what visitors agreed to give, and masks
    personal data. The store remembers the snapshot: `chaku visitors delete` names it.
    """
    kinds = [kind for kind in KINDS if chosen[kind]] or list(KINDS)
    now = dt.datetime.now(dt.UTC)
    folder = folder or Path(f"arena-{now:%Y-%m-%d}")
    require_database(database)
    with open_store(database or config.database_url()) as store:
        donations = read_donations(store, kinds)
        written = write_snapshot(donations, folder, kinds, now=now)
        note_snapshot(store, folder.name, sha256_file(folder / FACTS), donations, now=now)
    for name, number in written.facts["records"].items():
        click.echo(f"{number:,} from {name}")
    for reason, number in written.facts["left_out"].items():
        click.echo(f"{number:,} left out: {reason}")
    masked = sum(written.facts["masked"].values())
    click.echo(f"{masked:,} pieces of personal data are masked")
    click.echo(f"chaku data build {folder}/*.jsonl -o SET    builds rows from it")
