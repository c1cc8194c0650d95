"""`chaku weights card`: a model card from a run's manifest."""

from __future__ import annotations

from pathlib import Path

import click

from chaku.cli.help_page import command
from chaku.records import atomic_write
from chaku.weights.card import model_card, read_manifest

_PATH = click.Path(path_type=Path)


@command()
@click.argument("run", type=_PATH)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    show_default="standard output",
    type=_PATH,
    help="File to write, such as README.md.",
)
@click.option("--developer", metavar="NAME", help="Who made the model.")
@click.option(
    "--licence", metavar="NAME", show_default="the recorded one, else the base's", help="Licence of the model."
)
def card(run: Path, output: Path | None, developer: str | None, licence: str | None) -> None:
    """Write a model card for RUN, a training run's folder: details, data, training, losses, licence, limits."""

    text = model_card(read_manifest(run), developer=developer, licence=licence)
    if output is None:
        click.echo(text, nl=False)
        return
    with atomic_write(output) as file:
        file.write(text.encode())
    click.echo(f"{output}: a card of {len(text.splitlines())} lines", err=True)
