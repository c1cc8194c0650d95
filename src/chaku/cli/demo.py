"""`chaku demo`: the small built-in model, served, with its page opened."""

from __future__ import annotations

import click

from chaku.arena.example_votes import example_votes
from chaku.cli.help_page import command
from chaku.cli.serve import run
from chaku.config import database_url
from chaku.models.registry import DEFAULT_MODEL
from chaku.settings import Contestant
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import open_store

CONTESTANTS = (
    Contestant(name="steady", model=DEFAULT_MODEL, sampling={"temperature": 0.2, "max_tokens": 300}),
    Contestant(
        name="pirate",
        model=DEFAULT_MODEL,
        system="You are a cheerful pirate. You answer briefly, and you talk like a pirate.",
        sampling={"temperature": 0.8, "max_tokens": 300},
    ),
)
"""One model under two settings: an arena needs no second model."""


@command()
@click.option("--port", metavar="PORT", show_default="8000", type=int, help="Port; 0 takes a free one.")
@click.option("--threads", metavar="N", show_default="all cores", type=click.IntRange(1), help="CPU threads.")
@click.option("--open/--no-open", "opens_page", default=True, help="Open the page in a browser.")
def demo(port: int | None, threads: int | None, opens_page: bool) -> None:
    """Serve the small built-in model and open the page.

    It has 135M parameters and needs no GPU, no account and no hub. In the arena it stands twice: steady, and as a
    pirate. The leaderboard has example votes, marked as such and left out until you ask for them.
    """
    with open_store(database_url()) as store:
        ComparisonBook(store).add(example_votes(*(contestant.name for contestant in CONTESTANTS)), is_example=True)
    run((DEFAULT_MODEL,), None, port=port, threads=threads, opens_page=opens_page, contestants=CONTESTANTS)
