"""A group of commands that is only a table: a command's module is imported when that command runs."""

from __future__ import annotations

import gc
import importlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from chaku.cli.help_page import Group
from chaku.errors import UsageError
from chaku.nearest import nearest

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class LazyGroup(Group):
    """A group whose sub-commands are only imported when they run.

    `table` maps a command's name to its place ("module:attribute") and its help line. `sections` may group the names.
    """

    def __init__(
        self,
        *args: Any,
        table: Mapping[str, tuple[str, str]],
        sections: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.table = table
        self.help_sections = sections or {"Commands": tuple(table)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands in the table's order."""
        return list(self.table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command."""
        if cmd_name not in self.table:
            return None
        module, _, attribute = self.table[cmd_name][0].partition(":")
        gc.disable()  # what an import makes stays: the collector would walk it in vain, for a fifth of a start
        try:
            command = getattr(importlib.import_module(module), attribute)
        finally:
            gc.freeze()
            gc.enable()
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command to run. Raises UsageError naming the nearest one."""
        if args and args[0] not in self.table and not ctx.resilient_parsing:
            path = ctx.command_path
            near = nearest(args[0], self.table)
            fix = f"did you mean `{path} {near}`?" if near else f"`{path} --help` lists the commands"
            raise UsageError(f"there is no command {args[0]!r}", fix=fix)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table, section by section."""
        width = max(map(len, self.table))
        for title, names in self.help_sections.items():
            with formatter.section(title):
                formatter.write_dl([(f"{name:<{width}}", self.table[name][1]) for name in names])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete from the table, so that TAB imports nothing."""
        from click.shell_completion import CompletionItem

        commands = [
            CompletionItem(name, help=line) for name, (_, line) in self.table.items() if name.startswith(incomplete)
        ]
        return [*commands, *click.Command.shell_complete(self, ctx, incomplete)]
