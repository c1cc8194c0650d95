"""Every help page: two examples that parse, named values, one notation for defaults, short lines in the lists."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import click
import pytest

from chaku.cli.eval import COMMANDS as EVAL
from chaku.cli.examples import EXAMPLES
from chaku.cli.main import COMMANDS, SECTIONS, root
from chaku.cli.weights import COMMANDS as WEIGHTS

MOST_CHARS = 55
SHELL = ("|", "&&", ">", ";")


def walk(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            child = command.get_command(context, name)
            assert child is not None
            yield from walk(child, f"{path} {name}".strip())


PAGES = dict(walk(root))


def page(path: str) -> str:
    return PAGES[path].get_help(click.Context(PAGES[path], info_name=f"chaku {path}".strip(), terminal_width=100))


@pytest.mark.parametrize("path", list(PAGES))
def test_every_command_shows_two_examples_or_more(path: str) -> None:
    assert len(EXAMPLES[path]) >= 2
    shown = page(path).partition("\nExamples:\n")[2]
    assert shown.split("\n") == [f"  {line}" for line in EXAMPLES[path]]


def test_no_example_is_for_a_command_that_is_gone() -> None:
    assert EXAMPLES.keys() == PAGES.keys()


@pytest.mark.parametrize(("path", "line"), [(path, line) for path, lines in EXAMPLES.items() for line in lines])
def test_every_example_is_understood(path: str, line: str) -> None:
    words = shlex.split(line.replace("${fpath[1]}", "."))
    words = words[words.index("chaku") + 1 :]
    words = words[: next((at for at, word in enumerate(words) if word in SHELL), len(words))]
    command: click.Command = root
    names = []
    while isinstance(command, click.Group) and words and not words[0].startswith("-"):
        names.append(words.pop(0))
        command = PAGES[" ".join(names)]
    context = click.Context(command)
    words = ["--resume=auto" if word == "--resume" else word for word in words]  # as the command itself reads it
    values, left, _ = command.make_parser(context).parse_args(words)
    assert not left
    for param in command.params:
        if isinstance(param.type, click.Choice | click.types.IntParamType) and isinstance(values.get(param.name), str):
            param.type.convert(values[param.name], param, context)


@pytest.mark.parametrize(
    ("path", "option"),
    [
        pytest.param(path, param, id=f"{path} {param.opts[-1]}")
        for path, command in PAGES.items()
        for param in command.params
        if isinstance(param, click.Option) and not param.hidden
    ],
)
def test_an_option_names_its_value_and_writes_its_default_as_click_does(path: str, option: click.Option) -> None:
    takes_value = not option.is_flag and not option.secondary_opts
    assert not takes_value or option.metavar or isinstance(option.type, click.Choice)
    assert option.help, "it says what it does"
    assert "efault:" not in option.help and not re.search(r"\[[^\]]*\]\.?$", option.help)
    if takes_value and isinstance(option.default, int | float | str):
        assert option.show_default, "its default is shown"


@pytest.mark.parametrize("path", [path for path in PAGES if path])
def test_the_line_in_a_list_of_commands_is_short_and_whole(path: str) -> None:
    group, _, name = path.rpartition(" ")
    table = {"": COMMANDS, "eval": EVAL, "weights": WEIGHTS}.get(group)
    line = table[name][1] if table else PAGES[path].get_short_help_str(limit=200)
    assert len(line) < MOST_CHARS
    assert line.endswith(".")


def test_every_command_stands_in_one_section() -> None:
    listed = [name for names in SECTIONS.values() for name in names]
    assert sorted(listed) == sorted(COMMANDS)


def test_options_stand_in_groups() -> None:
    titles = re.findall(r"^([A-Z].*):$", page("serve"), re.M)
    assert titles[0] == "Options" and titles[-2:] == ["Other options", "Examples"] and len(titles) >= 6
