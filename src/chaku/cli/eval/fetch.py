"""`chaku eval fetch`: published suites, for people who have a network."""

from __future__ import annotations

import click

from chaku.cli.help_page import command
from chaku.cli.progress.fetching import fetching
from chaku.evals.published import PUBLISHED, SITE, fetch_suite


@command()
@click.argument("suite", type=click.Choice(tuple(PUBLISHED)))
@click.option(
    "--site", metavar="URL", default=SITE, show_default=True, help="Where the repository's files are, by commit."
)
def fetch(suite: str, site: str) -> None:
    """Fetch a published suite: vicuna80 or mt-bench.

    Files come from a pinned commit, and each is checked against its sha256. What is here already is not fetched again.
    `chaku eval run` then takes the suite by its name.
    """
    click.echo(f"{suite}: {PUBLISHED[suite].about}", err=True)
    with fetching(suite) as progress:
        folder = fetch_suite(suite, progress, site=site)
    click.echo(folder)
