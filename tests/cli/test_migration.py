"""docs/migration.md: chaku's own parser reads every command of it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from chaku.cli.main import root

PAGE = (Path(__file__).parents[2] / "docs/migration.md").read_text()
COMMANDS = sorted(
    {command for row in re.findall(r"^\| .*\| (.*) \|$", PAGE, re.MULTILINE) for command in re.findall(r"`(.*?)`", row)}
)


def parse(words: list[str]) -> None:
    """Let click read the words without running the command. Raises click.UsageError."""
    command: click.Command = root
    context = click.Context(root, info_name="chaku")
    while isinstance(command, click.Group):
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name}"
        command, context = found, click.Context(found, context, info_name=name)
    command.make_parser(context).parse_args(list(words))


@pytest.mark.parametrize("line", [line for line in COMMANDS if re.match(r"(chaku|torchrun) ", line)])
def test_a_command_is_one_of_chakus(line: str) -> None:
    parse(shlex.split(line.partition("chaku ")[2]))


def test_a_row_names_a_command_of_chaku() -> None:
    assert len([line for line in COMMANDS if line.startswith("chaku ")]) >= 30


@pytest.mark.parametrize("line", ["data build a.json --outputs x", "weights make-deltas a b"])
def test_a_wrong_command_is_noticed(line: str) -> None:
    with pytest.raises((click.UsageError, AssertionError)):
        parse(shlex.split(line))
