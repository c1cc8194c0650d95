"""`chaku demo`: the small built-in model, served, with its page opened."""

from __future__ import annotations

import click

from chaku.cli.serve import run

DEMO_MODEL = "smollm2-135m"


@click.command()
@click.option("--port", type=int, help="Port; 0 takes a free one. Default: 8000.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads. Default: all cores.")
@click.option("--open/--no-open", "opens_page", default=True, help="Open the page in a browser.")
def demo(port: int | None, threads: int | None, opens_page: bool) -> None:
    """Serve the built-in 135M model on this machine: no GPU, no account, no hub."""

    run((DEMO_MODEL,), None, port=port, threads=threads, opens_page=opens_page)
