"""`chaku runs push` to a hub on loopback: what arrives, what does not, and what opens again on the other side."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from click.testing import CliRunner

from chaku.cli.main import root
from chaku.errors import UsageError
from chaku.packages import install_command
from hub_server import HubServer
from pull_process import SOURCES
from train import small
from train.test_adapters import LORA

SECRET = "some-user"
Push = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture(scope="module")
def finished(base: Path, small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything it is made of lies below a folder whose name must not get out."""
    home = tmp_path_factory.mktemp(SECRET)
    shutil.copytree(base, home / "my-llama")
    made = small.recipe("first", home / "my-llama", home / "runs", max_steps=3)
    made = made.model_copy(update={"developer": "The lab", "licence": "CC-BY-4.0"})
    return small.trained(made, small_set)


@pytest.fixture(scope="module")
def finished_lora(finished: Path, small_set: Path) -> Path:
    changes: dict[str, Any] = {"method": "lora", "lora": LORA, "max_steps": 2}
    return small.trained(small.recipe("lora", finished.parents[1] / "my-llama", finished.parent, **changes), small_set)


@pytest.fixture
def push(hub: HubServer, tmp_path: Path) -> Push:
    """In a process of its own: huggingface_hub reads the hub's address when it is imported."""

    def run(*words: object, token: str | None = "hf_writer", **more: str) -> subprocess.CompletedProcess[str]:
        environment = {key: text for key, text in os.environ.items() if not key.startswith("HF_")}
        environment |= hub.environment(tmp_path / "hub", token) | {"PYTHONPATH": str(SOURCES)} | more
        command = [sys.executable, "-W", "error", "-m", "chaku", "runs", "push", *(str(word) for word in words)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    return run


def told(done: subprocess.CompletedProcess[str]) -> bool:
    """One line of error and one with the way out."""
    return [line.split()[0] for line in done.stderr.splitlines()] == ["error:", "fix:"]


def test_what_arrives_are_the_files(finished: Path, hub: HubServer, push: Push) -> None:
    done = push(finished, "lab/first", "--yes")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"{hub.url}/lab/first holds the run (private)"
    there = hub.repositories["lab/first"]
    assert there.private
    final = {path.name: path.read_bytes() for path in (finished / "final").iterdir()}
    assert there.files.keys() == {*final, "run/config.yaml", "run/manifest.json", "run/log.jsonl"}
    for name in final.keys() - {"README.md"}:
        assert there.files[name] == final[name], name
    assert there.files["run/log.jsonl"] == (finished / "log.jsonl").read_bytes()
    assert f"{len(final['model.safetensors']):,}  model.safetensors" in done.stdout
    assert "others don't know where the base is" in done.stdout


def test_no_path_or_name_of_this_machine_and_no_token_leaves_it(
    finished: Path, hub: HubServer, push: Push, small_set: Path
) -> None:
    assert SECRET in (finished / "config.yaml").read_text(), "or this test shows nothing"
    done = push(finished, "lab/quiet", "--yes", "--checkpoints")
    assert done.returncode == 0, done.stderr
    there = hub.repositories["lab/quiet"].files
    assert any(name.startswith("run/checkpoints/step-3/") and name.endswith(".distcp") for name in there)
    for name, content in there.items():
        for forbidden in (SECRET, str(Path.home()), str(small_set.parent), "hf_writer"):
            assert forbidden.encode() not in content, (name, forbidden)
    manifest = orjson.loads(there["run/manifest.json"])
    assert manifest["base"]["name"] == "my-llama" and manifest["data"]["folder"] == small_set.name
    config = yaml.safe_load(there["run/config.yaml"])
    assert (config["base"], config["train.output"], config["train.lr"]) == ("my-llama", "runs", 3e-3)
    assert "hf_writer" not in done.stdout + done.stderr


def test_the_card_says_developer_licence_base_and_where_to_get_it(finished: Path, hub: HubServer, push: Push) -> None:
    assert push(finished, "lab/card", "--yes", "--base", "org/tiny-llama").returncode == 0
    card = hub.repositories["lab/card"].files["README.md"].decode()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["base_model"]) == ("cc-by-4.0", "org/tiny-llama")
    assert "**Developed by:** The lab" in card and "hf download lab/card --local-dir ./card" in card


def test_a_card_that_was_written_over_stays(finished: Path, hub: HubServer, push: Push, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "first")
    home = finished.parents[1]
    (tmp_path / "first" / "final" / "README.md").write_text(f"---\nlicense: mit\n---\nMade from {home}/my-llama.\n")
    assert push(tmp_path / "first", "lab/mine", "--yes").returncode == 0
    card = hub.repositories["lab/mine"].files["README.md"].decode()
    assert card == "---\nlicense: mit\n---\nMade from my-llama.\n"


def test_pushed_again_nothing_is_sent_and_a_half_push_goes_on(
    finished: Path, hub: HubServer, push: Push, tmp_path: Path
) -> None:
    hub.fail, hub.fail_times = {"/commit/": 500}, 1
    failed = push(finished, "lab/again", "--yes")
    assert failed.returncode == 3 and told(failed), failed.stderr
    assert "it answered 500: made to fail" in failed.stderr and "push again" in failed.stderr
    assert hub.repositories["lab/again"].files == {}
    hub.fail = {}
    before = len(hub.requests)
    assert push(finished, "lab/again", "--yes").returncode == 0
    assert not [path for method, path in hub.requests[before:] if method == "PUT"], "the weights were there already"
    commits = list(hub.repositories["lab/again"].commits)
    again = push(finished, "lab/again", "--yes")
    assert again.stdout.splitlines()[-1].endswith("held all of it already (private)"), again.stderr
    assert hub.repositories["lab/again"].commits == commits


def test_weights_of_an_earlier_push_make_room(finished: Path, finished_lora: Path, hub: HubServer, push: Push) -> None:
    assert push(finished, "lab/both", "--yes", "--public").returncode == 0
    hub.repositories["lab/both"].files["notes.txt"] = b"by hand"
    done = push(finished_lora, "lab/both", "--yes")
    assert "deleted model.safetensors, of an earlier push" in done.stderr
    assert done.stdout.splitlines()[-1].endswith("(public)"), "a repository that is there stays as it is"
    there = hub.repositories["lab/both"].files
    assert (
        "model.safetensors" not in there and "adapter_model.safetensors" in there and there["notes.txt"] == b"by hand"
    )


OPEN = """
import sys
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
here, there, adapter = sys.argv[1:]
models = [AutoModelForCausalLM.from_pretrained(name).state_dict() for name in (here, there)]
assert models[0].keys() == models[1].keys() and all(models[0][name].equal(models[1][name]) for name in models[0])
asked = [{"role": "user", "content": "hi"}]
texts = {AutoTokenizer.from_pretrained(name).apply_chat_template(asked, tokenize=False) for name in (here, there)}
opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(there), adapter)
print(texts, len(opened.peft_config))
"""


def test_transformers_and_peft_open_what_was_pushed(
    finished: Path, finished_lora: Path, hub: HubServer, push: Push, tmp_path: Path
) -> None:
    assert push(finished, "lab/opened", "--yes").returncode == 0
    assert push(finished_lora, "lab/adapter", "--yes", "--base", "lab/opened").returncode == 0
    config = json.loads(hub.repositories["lab/adapter"].files["adapter_config.json"])
    assert config["base_model_name_or_path"] == "lab/opened"
    front = yaml.safe_load(hub.repositories["lab/adapter"].files["README.md"].decode().split("---")[1])
    assert (front["library_name"], front["base_model_relation"]) == ("peft", "adapter")
    command = [sys.executable, "-c", OPEN, str(finished / "final"), "lab/opened", "lab/adapter"]
    environment = os.environ | hub.environment(tmp_path / "elsewhere")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "{'<|im_start|>user\\nhi<|im_end|>\\n'} 1\n", done.stderr


def test_a_dry_run_says_all_and_asks_no_hub(finished: Path, hub: HubServer, push: Push) -> None:
    before = len(hub.requests)
    done = push(finished, "lab/dry", "--dry-run", token=None)
    assert done.returncode == 0 and "model.safetensors" in done.stdout and "lab/dry (private" in done.stdout
    assert len(hub.requests) == before


@pytest.mark.parametrize(
    ("token", "said"),
    [
        (None, "the hub asks for a token\n  fix: set HF_TOKEN, or run `hf auth login`"),
        ("hf_nobody", "the hub does not accept the token\n  fix: set HF_TOKEN"),
        ("hf_reader", "the token may not write to lab/first\n  fix: make one with write permission"),
    ],
)
def test_a_token_that_will_not_do_is_said_in_one_line(
    finished: Path, push: Push, hub: HubServer, token: str | None, said: str
) -> None:
    hub.repositories.pop("lab/first", None)
    done = push(finished, "lab/first", "--yes", token=token)
    assert done.returncode == 3 and told(done) and said in done.stderr
    assert not token or token not in done.stdout + done.stderr
    assert "lab/first" not in hub.repositories


def test_a_hub_that_is_not_there_is_said_in_one_line(finished: Path, push: Push) -> None:
    done = push(finished, "lab/first", "--yes", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 3 and told(done)
    assert "can't be pushed to http://127.0.0.1:9" in done.stderr and "HF_ENDPOINT" in done.stderr


def test_a_card_that_the_hub_does_not_take_is_said_before_anything_is_sent(
    finished: Path, push: Push, hub: HubServer, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "first")
    (tmp_path / "first" / "final" / "README.md").write_text("---\nlicense: [1]\n---\n")
    done = push(tmp_path / "first", "lab/card-less", "--yes")
    assert done.returncode == 3 and told(done)
    assert "Invalid metadata in README.md. - license must be text" in done.stderr
    assert hub.repositories["lab/card-less"].files == {}


def test_nobody_to_ask_is_no_yes(finished: Path, push: Push, hub: HubServer) -> None:
    before = len(hub.requests)
    done = push(finished, "lab/first")
    assert done.returncode == 2 and "say --yes" in done.stderr and len(hub.requests) == before


def test_an_unfinished_run_and_an_impossible_name_are_refused(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "runs" / "half")
    manifest = orjson.loads((finished / "manifest.json").read_bytes()) | {"finished": None}
    (tmp_path / "runs" / "half" / "manifest.json").write_bytes(orjson.dumps(manifest))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="half has not finished"):
        CliRunner().invoke(root, ["runs", "push", "half", "lab/half", "--dry-run"], catch_exceptions=False)
    with pytest.raises(UsageError, match="'a//b' can't be a repository"):
        CliRunner().invoke(root, ["runs", "push", str(finished), "a//b", "--dry-run"], catch_exceptions=False)


def test_the_missing_extra_is_named(finished: Path, push: Push, tmp_path: Path) -> None:
    (tmp_path / "hidden" / "huggingface_hub").mkdir(parents=True)
    (tmp_path / "hidden" / "huggingface_hub" / "__init__.py").write_text("raise ImportError('not here')")
    done = push(finished, "lab/first", PYTHONPATH=f"{tmp_path / 'hidden'}:{SOURCES}")
    assert done.returncode == 2 and told(done) and install_command("hub") in done.stderr
