"""What --json prints."""

from __future__ import annotations

import click
import orjson


def print_json(value: object) -> None:
    """Print a value as JSON, indented by two spaces."""
    click.echo(orjson.dumps(value, option=orjson.OPT_INDENT_2).decode())
