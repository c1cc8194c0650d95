"""What every help page has: options in groups, and examples at its end. `command` and `group` replace click's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from chaku.cli.examples import EXAMPLES
from chaku.complaints import not_utf8

_DESCRIBED_DEFAULT = re.compile(r"\[default: \((.*?)\)(?=[;\]])")
"""click puts a default that is described in words into parentheses."""


def option_group(*options: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """One decorator for several options, which stand on the help page in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


class Command(click.Command):
    """A command whose options may stand in groups.

    `sections` maps a group's title to the first option in it, in the order of the options; those before the first
    group are plain "Options".
    """

    def __init__(self, *args: Any, sections: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sections = dict(sections or {})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse, and make sure that every text is one: a terminal may send bytes that are not UTF-8."""
        left = super().parse_args(ctx, args)
        for param in self.params:
            if isinstance(param.type, click.types.StringParamType) and param.name in ctx.params:
                ctx.params[param.name] = _as_text(ctx.params[param.name], param, ctx)
        return left

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write one table per group."""
        title_of = {first: title for title, first in self.sections.items()}
        title = "Options"
        rows: list[tuple[str, str]] = []
        for param in self.get_params(ctx):
            if isinstance(param, click.Argument):
                continue
            if param is self.get_help_option(ctx):
                title, rows = self._write(formatter, title, rows, "Other options")
            elif param.name in title_of:
                title, rows = self._write(formatter, title, rows, title_of[param.name])
            if record := param.get_help_record(ctx):
                rows.append((record[0], _DESCRIBED_DEFAULT.sub(r"[default: \1", record[1])))
        self._write(formatter, title, rows, "")

    def _write(
        self, formatter: click.HelpFormatter, title: str, rows: list[tuple[str, str]], following: str
    ) -> tuple[str, list[tuple[str, str]]]:
        """Write a finished group and begin the following one. Without groups everything is one table."""
        if not self.sections and following:
            return title, rows
        if rows:
            with formatter.section(title):
                formatter.write_dl(rows)
        return following, []

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the command's examples."""
        write_examples(ctx, formatter)
        super().format_epilog(ctx, formatter)


def _as_text(value: Any, param: click.Parameter, ctx: click.Context) -> Any:
    """Read as UTF-8 what Python could not: it keeps such bytes as lone surrogates, in any locale that is not UTF-8 too.

    Raises BadParameter for bytes that are not UTF-8.
    """
    if isinstance(value, tuple):
        return tuple(_as_text(item, param, ctx) for item in value)
    if not isinstance(value, str) or value.isascii():
        return value
    try:
        return value.encode("utf-8", "surrogateescape").decode()
    except UnicodeDecodeError as error:
        raise click.BadParameter(not_utf8("it", error), ctx, param) from None


class Group(click.Group):
    """A group of such commands."""

    command_class = Command
    group_class = type  # click's word for: groups below are of this class too

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the group's examples."""
        write_examples(ctx, formatter)
        super().format_epilog(ctx, formatter)


def command(name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], Command]:
    """Decorate a function as a command with such a help page; the settings are those of `Command`."""
    return click.command(name, cls=settings.pop("cls", Command), **settings)


def group(name: str | None = None, **settings: Any) -> Callable[[Callable[..., Any]], Group]:
    """Decorate a function as a group of such commands."""
    return click.group(name, cls=Group, **settings)


def write_examples(ctx: click.Context, formatter: click.HelpFormatter) -> None:
    """Write the lines of the table that belong to this command; they are never wrapped."""
    examples: Sequence[str] = EXAMPLES.get(ctx.command_path.partition(" ")[2], ())
    if examples:
        with formatter.section("Examples"):
            for line in examples:
                formatter.write(f"{'':{formatter.current_indent}}{line}\n")
