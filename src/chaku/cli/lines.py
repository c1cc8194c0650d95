"""Lines for a terminal of any width: long ones are wrapped between words. Pipes and files get them whole."""

from __future__ import annotations

import shutil
import sys
import textwrap

import click

_HANGING = "  "


def say(text: str = "", *, err: bool = False, color: bool | None = None) -> None:
    """Print lines; what does not fit the terminal goes on, a little further in, on the next line."""
    if (sys.stderr if err else sys.stdout).isatty():
        width = shutil.get_terminal_size().columns
        text = "\n".join(_wrapped(line, width) for line in text.split("\n"))
    click.echo(text, err=err, color=color)


def _wrapped(line: str, width: int) -> str:
    indent = line[: len(line) - len(line.lstrip())]
    return textwrap.fill(
        line, width, subsequent_indent=indent + _HANGING, break_long_words=False, break_on_hyphens=False
    )
