"""`chaku eval report`: a run as one HTML file to send to somebody."""

from __future__ import annotations

from pathlib import Path

import click

from chaku.cli.help_page import command
from chaku.cli.json_output import print_json
from chaku.evals.records import Run
from chaku.evals.summary import summary
from chaku.records import atomic_write
from chaku.web.standalone import standalone

_RUN = click.Path(path_type=Path, file_okay=False, exists=True)


@command()
@click.argument("folder", metavar="RUN", type=_RUN)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    show_default="RUN/report.html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the page there.",
)
@click.option("--against", metavar="RUN", type=_RUN, help="Mark questions that this run's judge decided otherwise.")
@click.option("--json", "as_json", is_flag=True, help="Print what the page shows as one JSON object instead.")
def report(folder: Path, output: Path | None, against: Path | None, as_json: bool) -> None:
    """Write a run as one HTML page.

    The page is one file and loads nothing from elsewhere. It shows scores by category, wins, the judge's health, cost,
    and every question with the answers side by side.
    """
    run = Run.load(folder)
    content = summary(run, Run.load(against) if against else None)
    if as_json:
        print_json(content)
        return
    output = output or folder / "report.html"
    page = standalone(f"{content['name']}: evaluation", "evals/standalone.js", ["evals/evals.css"], content)
    with atomic_write(output) as file:
        file.write(page.encode())
    click.echo(f"{output} shows {len(content['models'])} models on {len(content['questions'])} questions")
