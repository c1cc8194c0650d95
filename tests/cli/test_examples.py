"""Every file in examples/ runs as its first line prints it."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from openai import OpenAI

from chaku.cli.main import root
from chaku_server import ONE_THREAD, run_chaku, serving
from empty_environment import ROOT


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of examples/, as the working directory."""
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def printed(name: str) -> list[str]:
    """The words of the command in the first line of an example, after the last `chaku`."""
    line = (ROOT / "examples" / name).read_text().splitlines()[0].removeprefix("# ")
    return shlex.split(line.rpartition("chaku ")[2])


def chaku(*words: object) -> Result:
    return CliRunner().invoke(root, [str(word) for word in words], catch_exceptions=False)


def test_the_ten_conversations_make_a_set_that_is_fit_to_train_on(clone: Path) -> None:
    rows = [json.loads(line) for line in (clone / "examples" / "conversations.jsonl").read_text().splitlines()]
    assert len(rows) == 10
    done = chaku("data", "build", "examples/conversations.jsonl", "-o", "my-set", "--processes", "1")
    assert done.exit_code == 0, done.output
    assert "10 records in, 10 segments to train on" in done.output and "audit: passed" in done.output


def test_the_example_of_serve_is_understood_as_printed(clone: Path) -> None:
    words = printed("serve.yaml")
    assert words == ["serve", "--config", "examples/serve.yaml"]
    done = chaku(*words, "--print-config")
    assert done.exit_code == 0 and "source: smollm2-135m" in done.stdout


@pytest.mark.model
def test_the_example_of_serve_answers(clone: Path) -> None:
    file = clone / "examples" / "serve.yaml"
    file.write_text(file.read_text().replace("slots: 2 ", f"threads: {ONE_THREAD[1]}\n    slots: 2 "))
    with serving(clone, "--config", str(file)) as server, OpenAI(base_url=server.base_url, api_key="any") as client:
        question = [{"role": "user", "content": "What is the capital of France?"}]
        for model in ("small", "parrot"):
            answer = client.chat.completions.create(model=model, messages=question, max_tokens=8, temperature=0)  # type: ignore[arg-type]
            assert answer.choices[0].message.content


@pytest.mark.model
@pytest.mark.prove
def test_the_example_recipe_trains_as_printed(clone: Path) -> None:
    done = run_chaku(clone, *printed("recipe.yaml"))
    assert done.returncode == 0, done.stderr
    assert "final holds the model" in done.stdout
    assert (clone / "runs" / "ten-conversations" / "final" / "config.json").exists()


@pytest.mark.model
@pytest.mark.prove
def test_a_dry_run_of_the_example_recipe_plans_it_and_writes_nothing(clone: Path) -> None:
    before = sorted(path for path in clone.rglob("*"))
    done = chaku(*printed("recipe.yaml"), "--dry-run")
    assert done.exit_code == 0, done.output
    assert "ten-conversations: smollm2-135m on" in done.output and "3 steps of 8 rows" in done.output
    assert sorted(path for path in clone.rglob("*")) == before


def test_a_dry_run_that_refuses_its_set_names_a_command_that_works(clone: Path) -> None:
    line = '{"messages": [{"role": "user", "content": "hi"}]}\n'
    (clone / "bad.jsonl").write_text(line)
    done = CliRunner().invoke(root, ["train", "examples/recipe.yaml", "--dry-run", "--set", "data.inputs=[bad.jsonl]"])
    said = f"{done.exception} {getattr(done.exception, 'fix', '')}"
    assert "chaku-dry-run" not in said
    assert "chaku data build --recipe examples/recipe.yaml -o my-set" in said
