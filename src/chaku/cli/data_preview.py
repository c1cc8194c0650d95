"""`chaku data preview`: samples as they are trained on, in the terminal or as a page."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.text import Text

from chaku.cli.help_page import command
from chaku.data.inspect import preview as previews
from chaku.packages import needs

if TYPE_CHECKING:
    from chaku.data.inspect.preview import Sample

_FILE = click.Path(path_type=Path)


def data_console() -> Console:
    """The terminal; lines that go elsewhere are not wrapped."""
    context = click.get_current_context()
    return Console(no_color=context.color is False, highlight=False, soft_wrap=not sys.stdout.isatty())


@command()
@click.argument("folder", type=_FILE)
@click.option(
    "-n", "--number", metavar="N", type=click.IntRange(1), default=3, show_default=True, help="Samples to show."
)
@click.option(
    "--part",
    type=click.Choice(["train", "test", "pairs-train", "pairs-test"]),
    default="train",
    show_default=True,
    help="Rows to show from.",
)
@click.option("--seed", metavar="SEED", type=int, default=0, show_default=True, help="Another seed, other samples.")
@click.option("--tokenizer", metavar="TOKENIZER", help="Where the tokenizer is now, if not where the manifest says.")
@click.option("--html", "page", metavar="FILE", type=_FILE, help="Write an HTML page instead.")
@needs("data")
def preview(folder: Path, number: int, part: str, seed: int, tokenizer: str | None, page: Path | None) -> None:
    """Show samples as they are trained on.

    Text that carries loss is green and in ⟦brackets⟧.
    """

    chosen = list(previews.samples(folder, number, part=part, seed=seed, tokenizer=tokenizer))
    if page is not None:
        page.write_text(previews.page(chosen, f"{folder.name}: what is trained"), encoding="utf-8")
        click.echo(f"{len(chosen)} samples in {page}")
        return
    console = data_console()
    for sample in chosen:
        show_sample(console, sample)


def show_sample(console: Console, sample: Sample) -> None:
    """Print one document with its trained text in green and in brackets."""

    console.rule(f"{sample.where}: {sample.num_trained:,} of {sample.num_tokens:,} tokens trained")
    text = Text()
    for span in sample.spans:
        shown = previews.printable(span.text)
        if span.is_trained:
            text.append(f"{previews.OPEN}{shown}{previews.CLOSE}", style="green")
        else:
            text.append(shown, style="dim")
    console.print(text)
