"""`make tour`: every step runs, a killed tour resumes, and the visitor votes as it says."""

from __future__ import annotations

import importlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from chaku.data.build import build
from chaku.data.inspect.report import read_funnel
from chaku.data.recipe import DataConfig
from data import made
from empty_environment import ROOT
from processes import PATIENCE_S, environment

FOLDER = ROOT / "scripts" / "tour"


@pytest.fixture(autouse=True)
def on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_the_shares_meet_the_rules_that_they_were_written_for(tmp_path: Path) -> None:
    tokenizer = made.write_tokenizer(tmp_path / "tokenizer")
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
    variables = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    ends = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=variables, timeout=120)
        for _ in range(2)
    ]
    assert ends[0].returncode == 1 and "resumes the tour" in ends[0].stderr, ends[0].stderr
    assert ends[1].returncode == 0, ends[1].stderr
    assert (tmp_path / "first").read_text() == "x" and "is there already" in ends[1].stdout
    assert json.loads((tmp_path / "steps" / "one.json").read_text())["title"] == "One"


def test_a_tour_that_is_killed_while_its_servers_are_up_resumes_and_ends_in_the_report(
    tmp_path: Path, miniature: Path
) -> None:
    """Every step at toy size, in about a minute; the model is random, so nothing is claimed of its answers."""
    folder = tmp_path / "tour"
    words = ("--name", "Illari", "--folder", folder, "--base", miniature, "--toy", "--no-open")
    command = [sys.executable, FOLDER, *words]
    variables = environment(CHAKU_CACHE=str(tmp_path / "cache"))
    with (tmp_path / "first.log").open("wb") as log:
        first = subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log, start_new_session=True)
        while not (folder / "steps" / "eval.json").exists():
            assert first.poll() is None, (tmp_path / "first.log").read_text()[-4000:]
            time.sleep(0.1)
        servers = psutil.Process(first.pid).children(recursive=True)
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    assert len(servers) >= 4, "the gateway and a worker, each with its engine"
    assert psutil.wait_procs(servers, PATIENCE_S)[1] == []
    second = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=variables, timeout=500)
    assert second.returncode == 0, second.stdout[-2000:] + second.stderr[-2000:]
    assert "(tour) kill -9" in (tmp_path / "first.log").read_text() and "The base learns its name" not in second.stdout
    page = (folder / "report.html").read_text()
    assert "A model called Illari" in page and page.count("<h2>") == 9
    assert "4 answers, 0 of them failed; worker-1 was killed on the way" in page
    assert re.search(r"The second round: \d+ pairs to learn from, \d+ held out", page)
