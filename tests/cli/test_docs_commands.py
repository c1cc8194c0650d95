"""Every command that README.md and the pages of docs/ print is one that chaku's own parser reads."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from chaku.cli.main import root

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *(path for path in sorted((ROOT / "docs").glob("*.md")) if path.name != "cli.md")]
"""docs/cli.md is written from the commands themselves."""
SHELL = re.compile(r"^```(?:sh|bash|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
CELL = re.compile(rf"(?:torchrun .*)?chaku (?:{'|'.join(root.list_commands(click.Context(root)))})\b")
END = {">", "2>", "<", "&", "|", "||", "&&", ";"}


def commands_of(text: str) -> list[list[str]]:
    """The words after `chaku` in shell blocks, and in cells of tables (some cells are messages: those are left out)."""
    blocks = "\n".join(SHELL.findall(text)).replace("\\\n", " ").replace("\n>", " ")
    cells = [cell for row in re.findall(r"^\|.*\|$", text, re.MULTILINE) for cell in re.findall(r"`(.*?)`", row)]
    found = []
    for line in [*blocks.splitlines(), *(cell for cell in cells if CELL.match(cell))]:
        for piece in re.split(r" && | \| |; ", line.removeprefix("$ ").partition(" #")[0]):
            if match := re.search(r"(?:^|\$\(|-m )(?:[A-Z_]+=\S+ )*chaku ([a-z].*)", piece):
                words = shlex.split(match[1].rstrip(")"))
                found.append(words[: next((at for at, word in enumerate(words) if word in END), len(words))])
    return found


def parse(words: list[str]) -> None:
    """Let click read the words without running the command. Raises click.UsageError, AssertionError."""
    command: click.Command = root
    context = click.Context(root, info_name="chaku")
    while isinstance(command, click.Group) and words:
        name, *words = words
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name}"
        command, context = found, click.Context(found, context, info_name=name)
    if words[-1:] == ["--resume"]:  # without a word it means auto
        words = words[:-1]
    command.make_parser(context).parse_args(list(words))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_are_chakus(page: Path) -> None:
    wrong = []
    for words in commands_of(page.read_text()):
        try:
            parse([word for word in words if word not in ("...", "…")])
        except (click.UsageError, AssertionError) as error:
            wrong.append(f"chaku {shlex.join(words)}: {error}")
    assert wrong == []


def test_commands_are_found() -> None:
    assert sum(len(commands_of(page.read_text())) for page in PAGES) >= 250
    text = "```sh\n$ A=b chaku data build x \\\n  -o y   # why\nchaku ps | jq .\n```\n| `chaku stop` |\n"
    assert commands_of(text) == [["data", "build", "x", "-o", "y"], ["ps"], ["stop"]]


@pytest.mark.parametrize("line", ["data build a.json --outputs x", "weights make-deltas a b"])
def test_a_wrong_command_is_noticed(line: str) -> None:
    with pytest.raises((click.UsageError, AssertionError)):
        parse(shlex.split(line))
