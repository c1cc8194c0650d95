"""`chaku demo`: the small built-in model, served, with its page opened."""

from __future__ import annotations

import click

from chaku.cli.help_page import command
from chaku.cli.serve import run

DEMO_MODEL = "smollm2-135m"


@command()
@click.option("--port", metavar="PORT", show_default="8000", type=int, help="Port; 0 takes a free one.")
@click.option("--threads", metavar="N", show_default="all cores", type=click.IntRange(1), help="CPU threads.")
@click.option("--open/--no-open", "opens_page", default=True, help="Open the page in a browser.")
def demo(port: int | None, threads: int | None, opens_page: bool) -> None:
    """Serve the small built-in model and open the page.

    It has 135M parameters and needs no GPU, no account and no hub.
    """

    run((DEMO_MODEL,), None, port=port, threads=threads, opens_page=opens_page)
