"""`chaku paths`: where chaku keeps its files on this machine, and which variable moves each of them."""

from __future__ import annotations

from pathlib import Path

import click

from chaku import config
from chaku.cli.help_page import command
from chaku.cli.json_output import print_json
from chaku.models.fetch.cache import models_dir
from chaku.store.database import without_password


def places() -> dict[str, tuple[str, str]]:
    """Name to place and what moves it."""
    return {
        "cache": (str(config.cache_dir()), "CHAKU_CACHE"),
        "models": (str(models_dir()), "CHAKU_CACHE"),
        "data": (str(config.data_dir()), "CHAKU_DATA"),
        "database": (without_password(config.database_url()), "CHAKU_DATABASE, --database"),
        "settings": ("none: flags, or serve --config FILE", "--config"),
        "runs": (str(Path("runs").absolute()), "train.output in the recipe, serve --runs"),
    }


@command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON, names to places.")
def paths(as_json: bool) -> None:
    """Show where chaku keeps its files.

    The last column names what moves a place: an environment variable, a flag or a key of the recipe.
    """
    if as_json:
        found = {name: place for name, (place, _) in places().items()} | {"settings": None}
        print_json(found)
        return
    width = max(len(place) for place, _ in places().values())
    for name, (place, moved_by) in places().items():
        click.echo(f"{name:<10}{place:<{width}}  {moved_by}")
