"""`make tour`: its commands are public ones, a finished step is not run again, and the visitor votes as it says."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import pytest

from chaku.cli.main import root
from chaku.data.build import build
from chaku.data.inspect.report import read_funnel
from chaku.data.recipe import DataConfig
from chaku.train.config import read_recipe, train_config
from data.made import write_tokenizer
from empty_environment import ROOT

FOLDER = ROOT / "scripts" / "tour"


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def tour(folder: Path) -> Any:
    steps = module("steps")
    return steps.Tour(folder, "Illari", steps.TOY, 8123)


def parse(words: list[str]) -> None:
    """Hold a command's words against the options of chaku; nothing is run."""
    command: click.Command = root
    with click.Context(root, info_name="chaku") as context:
        while isinstance(command, click.Group):
            _, found, words = command.resolve_command(context, words)
            assert found is not None
            command = found
            context = click.Context(command, parent=context)
        command.parse_args(context, list(words))


def test_every_command_of_the_tour_is_one_that_chaku_takes(tmp_path: Path) -> None:
    made = tour(tmp_path)
    (tmp_path / "eval").mkdir()  # an earlier step's answers, which the judge is tried on
    commands = [command for step in made.steps() for command in step.commands]
    commands += [made.gateway(), made.worker(1)]
    assert len(commands) > 12
    for command in commands:
        if command[0] == "chaku":
            parse(list(command[1:]))
        else:
            assert (ROOT / command[1]).is_file()


def test_its_recipes_are_read_and_the_second_continues_from_the_first(tmp_path: Path) -> None:
    made = tour(tmp_path)
    made.write_files()
    first, second = (train_config(read_recipe(tmp_path / f"round-{number}.yaml")) for number in (1, 2))
    assert second.objective == "dpo" and second.continue_from == made.run and first.objective == "supervised"


def test_the_shares_meet_the_rules_that_they_were_written_for(tmp_path: Path) -> None:
    tokenizer = write_tokenizer(tmp_path / "tokenizer")
    module("shares").main(tmp_path / "shares")
    config = DataConfig(inputs=(tmp_path / "shares" / "shares.json",), tokenizer=str(tokenizer), context=1024)
    folder = build(config, tmp_path / "set", processes=1).folder
    rules = {rule.rule for rule in read_funnel(folder).rules}
    assert {"cleaned", "identity_claim", "repetition", "error_answer", "exact_duplicate", "email"} <= rules
    cleaned = (folder / "messages" / "train-00000.jsonl").read_text()
    assert "```python\\nfor number in range(3):\\n    print(number)" in cleaned and "Copy code" not in cleaned


@pytest.mark.parametrize(
    ("a", "b", "is_who", "choice"),
    [
        ("I am Illari.", "I am SmolLM.", True, "a"),
        ("I am SmolLM.", "I'm illari!", True, "b"),
        ("It is Paris.", "I am Illari.", False, "a"),
        ("Paris.", "Rome.", False, "tie"),
        ("Illari", "Illari", True, "tie"),
    ],
)
def test_the_visitor_wants_the_name_only_where_it_was_asked_for(a: str, b: str, is_who: bool, choice: str) -> None:
    assert module("voter").choice_of({"a": a, "b": b}, "Illari", is_who=is_who) == choice


def test_a_visitor_of_the_toy_breaks_ties_by_length() -> None:
    choice_of = module("voter").choice_of
    for a, b, choice in (("Oh.", "Hello.", "a"), ("Hello.", "Oh.", "b"), ("One.", "Two.", "tie")):
        assert choice_of({"a": a, "b": b}, "Illari", is_who=True, likes_short=True) == choice


def test_what_commands_said_stands_in_the_report_without_their_progress() -> None:
    said = (
        "1 of 80 judgements, 8 tokens, 907 s left\nprepare ...\npack: 2 of 2 shards, 4 documents/s\nbase: not fit\n\n"
    )
    assert module("report")._shown_lines(said) == ["base: not fit"]


def test_a_killed_step_resumes_with_the_command_that_was_not_done(tmp_path: Path) -> None:
    """The first command leaves its result; the second ends badly once. Nothing that is there is made again."""
    note = "import sys, pathlib; file = pathlib.Path(sys.argv[1]).open('a'); file.write('x'); file.close()"
    fails_once = (
        "import sys, pathlib; path = pathlib.Path(sys.argv[1]); was = path.exists(); path.touch(); sys.exit(not was)"
    )
    commands = [
        ("python", "-c", code, str(tmp_path / name)) for code, name in ((note, "first"), (fails_once, "second"))
    ]
    script = f"""
import runpy, sys
from pathlib import Path
sys.path.insert(0, {str(FOLDER)!r})
main = runpy.run_path({str(FOLDER / "__main__.py")!r})
from steps import TOY, Step, Tour
folder = Path({str(tmp_path)!r})
main["run_step"](Tour(folder, "Illari", TOY, 1), Step("one", "One", {tuple(commands)!r}, (folder / "first", None)), [])
"""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ends = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, timeout=120)
        for _ in range(2)
    ]
    assert ends[0].returncode == 1 and "resumes the tour" in ends[0].stderr, ends[0].stderr
    assert ends[1].returncode == 0, ends[1].stderr
    assert (tmp_path / "first").read_text() == "x" and "is there already" in ends[1].stdout
    assert json.loads((tmp_path / "steps" / "one.json").read_text())["codes"] == [0]


@pytest.mark.prove
@pytest.mark.model
@pytest.mark.timeout(3600)
def test_every_step_runs_at_toy_size_and_the_end_is_the_report(tmp_path: Path) -> None:
    command = [sys.executable, FOLDER, "--name", "Illari", "--folder", tmp_path / "tour", "--toy", "--no-open"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=3000)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    page = (tmp_path / "tour" / "report.html").read_text()
    assert "Illari" in page and "kill -9" in done.stdout and page.count("<h2>") == 9
