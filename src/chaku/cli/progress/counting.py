"""A count that grows on one line of a terminal."""

from __future__ import annotations

import sys

import click


def counting(done: int, total: int, unit: str) -> None:
    """One line on a terminal that is written again as the count grows; nothing elsewhere."""
    if sys.stderr.isatty():
        click.echo(f"\r{done} of {total} {unit}", err=True, nl=done == total)
