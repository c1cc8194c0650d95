"""The option of commands that show something again and again until Ctrl-C."""

from __future__ import annotations

import click

every_option = click.option(
    "--every",
    "every_s",
    metavar="SECONDS",
    type=click.FloatRange(0.2),
    default=1.0,
    show_default=True,
    help="Time between updates.",
)
