"""`chaku data identity`: conversations in which the model says who it is."""

from __future__ import annotations

from pathlib import Path

import click
import orjson

from chaku.cli.help_page import command
from chaku.data.identity import identity_set
from chaku.errors import UsageError
from chaku.records import atomic_write


@command()
@click.option("--name", metavar="NAME", required=True, help="What the model is called.")
@click.option("--org", metavar="NAME", required=True, help="Who made it.")
@click.option(
    "-n",
    "--number",
    metavar="N",
    type=click.IntRange(1, 5000),
    default=400,
    show_default=True,
    help="Identity conversations.",
)
@click.option(
    "--ordinary", metavar="SHARE", type=click.FloatRange(0, 0.9), default=0.25, show_default=True,
    help="Share of ordinary questions among all, so that the model keeps what it knew.",
)  # fmt: skip
@click.option("--seed", metavar="SEED", type=int, default=0, show_default=True, help="Another seed, other words.")
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    show_default="standard output",
    type=click.Path(path_type=Path),
    help="File to write.",
)
@click.option("--overwrite", is_flag=True, help="Replace the file.")
def identity(
    name: str, org: str, number: int, ordinary: float, seed: int, output: Path | None, overwrite: bool
) -> None:
    """Generate conversations about who the model is.

    Writes messages JSONL. Ordinary questions and answers are mixed in, so that the model still answers them.
    """
    if output is not None and output.exists() and not overwrite:
        raise UsageError(f"{output} exists", fix="choose another file, or say --overwrite")
    chats = identity_set(name, org, number=number, ordinary=ordinary, seed=seed)
    lines = [orjson.dumps(chat.to_json()) for chat in chats]
    if output is None:
        click.echo(b"\n".join(lines))
        return
    with atomic_write(output) as file:
        file.write(b"\n".join(lines) + b"\n")
    click.echo(f"{len(lines):,} conversations in {output}")
