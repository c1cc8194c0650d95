"""`chaku data template`: a built-in template as the Jinja that transformers, TRL and engines read."""

from __future__ import annotations

from pathlib import Path

import click

from chaku.chat.export import to_jinja
from chaku.chat.templates import TEMPLATES, get_template
from chaku.cli.help_page import command
from chaku.errors import UsageError
from chaku.records import atomic_write


@command()
@click.argument("name", metavar="[TEMPLATE]", required=False)
@click.option(
    "--generation/--plain", default=True, show_default=True,
    help="Mark what carries loss. Engines need --plain: their Jinja has no such tag.",
)  # fmt: skip
@click.option(
    "--bos/--no-bos", default=True, show_default=True, help="Write bos_token; not for a tokenizer without one."
)
@click.option(
    "-o", "--output", metavar="FILE", show_default="standard output", type=click.Path(path_type=Path),
    help="File to write.",
)  # fmt: skip
@click.option("--overwrite", is_flag=True, help="Replace the file.")
def template(name: str | None, generation: bool, bos: bool, output: Path | None, overwrite: bool) -> None:
    """Write a chat template as Jinja, or list the templates.

    TRL (`assistant_only_loss`) and other trainers over transformers then train the tokens that chaku trains.
    """
    if name is None:
        click.echo("\n".join(sorted(TEMPLATES)))
        return
    source = to_jinja(get_template(name), bos=bos, generation=generation)
    if output is None:
        click.echo(source)
        return
    if output.exists() and not overwrite:
        raise UsageError(f"{output} exists", fix="choose another file, or say --overwrite")
    with atomic_write(output) as file:
        file.write(source.encode())
    click.echo(f"{name} in {output}")
