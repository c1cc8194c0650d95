"""Lines for a terminal of any width: long ones are wrapped between words. Pipes and files get them whole."""

from __future__ import annotations

import sys

import click

from chaku.wrapping import wrapped


def say(text: str = "", *, err: bool = False, color: bool | None = None) -> None:
    """Print lines; what does not fit the terminal goes on, a little further in, on the next line."""
    is_terminal = (sys.stderr if err else sys.stdout).isatty()
    click.echo(wrapped(text) if is_terminal else text, err=err, color=color)
