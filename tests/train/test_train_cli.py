"""`chaku train` and `chaku runs` as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chaku.cli.main import root
from chaku.cli.run_plot import QUANTITIES, ticks
from chaku.errors import ChakuError, UsageError
from data.made import write_json
from evals.model_server import ModelServer
from train import small


def chaku(*words: object) -> Result:
    return CliRunner().invoke(root, [str(word) for word in words], catch_exceptions=False)


@pytest.fixture(scope="module")
def recipe(base: Path, small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Raw files under `data:`, trained in one command."""
    folder = tmp_path_factory.mktemp("cli")
    data = {"inputs": [str(small_set.with_suffix(".json"))], "tokenizer": str(base), "context": 256}
    train = {**small.SETTINGS, "output": str(folder / "runs"), "max_steps": 6}
    return write_json(folder / "recipe.yaml", {"name": "mine", "base": str(base), "data": data, "train": train})


@pytest.fixture(scope="module")
def output(recipe: Path) -> str:
    return chaku("train", recipe).output


def test_raw_files_become_a_model_in_one_command(recipe: Path, output: str) -> None:
    folder = recipe.parent / "runs" / "mine"
    assert (folder / "final" / "model.safetensors").is_file()
    assert (recipe.parent / "runs" / "mine-data" / "manifest.json").is_file()
    assert "of them trained" in output and "step 6 of 6: loss " in output and " left" in output


def test_samples_come_before_the_first_step(output: str) -> None:
    samples, _, steps = output.partition("step 6 of 6")
    assert samples.count("tokens trained") == 3 and "⟦" in samples and steps


def test_a_dry_run_trains_nothing(recipe: Path) -> None:
    result = chaku("train", recipe, "--dry-run", "--set", "name=dry", "--set", "train.epochs=1")
    assert result.exit_code == 0 and "1 epoch;" in result.output
    assert not list((recipe.parent / "runs").glob("dry*"))


def test_resuming_a_finished_run_changes_nothing(recipe: Path, output: str) -> None:
    folder = recipe.parent / "runs" / "mine"
    before, manifest = small.weights(folder), (folder / "manifest.json").read_bytes()
    assert chaku("train", recipe, "--resume", "auto").exit_code == 0
    assert small.weights(folder) == before
    assert json.loads((folder / "manifest.json").read_bytes())["finished"] == json.loads(manifest)["finished"]


def test_then_eval_compares_the_run_with_its_base(
    recipe: Path, output: str, base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = recipe.parent / "runs" / "mine"
    suite = tmp_path / "suite.jsonl"
    lines = [
        {"id": str(n), "turns": [f"{n} + 1?"], "checker": {"kind": "number", "expected": str(n + 1)}} for n in range(4)
    ]
    suite.write_text("".join(json.dumps(line) + "\n" for line in lines))

    def right(body: dict[str, Any]) -> str:
        return f"Answer: {int(body['messages'][-1]['content'].split()[0]) + 1}"

    with ModelServer({str(base): lambda body: "I don't know.", str(folder): right}).running() as server:
        then = f"eval {suite} --base-url {server.base_url}"
        assert chaku("train", recipe, "--resume", "auto", "--then", then).exit_code == 0
    told = capfd.readouterr().out
    assert "base 0.000, mine 1.000: difference +1.000" in told
    assert (folder / "eval/run.json").exists()


def test_then_eval_that_fails_says_how_to_continue(recipe: Path, output: str) -> None:
    with pytest.raises(ChakuError, match="the model is trained; its evaluation failed with exit code 2") as caught:
        chaku("train", recipe, "--resume", "auto", "--then", "eval no-such-suite")
    assert "chaku eval run no-such-suite -m base=" in str(caught.value)


@pytest.mark.parametrize("text", ["", "evaluate", "eval 'x", "rm -rf"])
def test_another_word_than_eval_is_refused_before_training(recipe: Path, text: str) -> None:
    with pytest.raises(UsageError, match="--then"):
        chaku("train", recipe, "--set", "name=never", "--then", text)
    assert not (recipe.parent / "runs/never").exists()


def test_a_set_that_failed_its_audit_is_refused(recipe: Path, small_set: Path, tmp_path: Path) -> None:
    copy = tmp_path / "set"
    shutil.copytree(small_set, copy)
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["audit"] |= {"passed": False, "errors": ["no token carries loss"]}
    write_json(copy / "manifest.json", manifest)
    with pytest.raises(UsageError, match="not fit to train on: no token carries loss"):
        chaku("train", recipe, "--set", f"data={copy}", "--set", "name=bad")


def test_a_set_for_another_tokenizer_is_refused_with_both_names(recipe: Path, tmp_path: Path, base: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    content = json.loads((other / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    write_json(other / "tokenizer.json", content)
    with pytest.raises(UsageError) as caught:
        chaku("train", recipe, "--set", f"base={other}", "--set", "name=other")
    assert str(base) in str(caught.value) and str(other) in str(caught.value)


def test_runs_are_listed_shown_and_watched(recipe: Path, output: str) -> None:
    folder = recipe.parent / "runs" / "mine"
    assert "mine" in chaku("runs", "list", folder.parent).output
    shown = chaku("runs", "show", folder).output
    assert "step-6" in shown and "▁" in shown and "finished" in shown
    assert chaku("runs", "watch", folder).output.count("loss ") == 6
    (row,) = json.loads(chaku("runs", "list", folder.parent, "--json").output)
    assert (row["name"], row["steps"], row["continued_from"]) == ("mine", 6, None) and row["finished"]
    assert json.loads(chaku("runs", "show", folder, "--json").output)["result"]["steps"] == 6


SUPERVISED = [name for name in QUANTITIES if "margin" not in name and "accuracy" not in name]
"""What runs without pairs log."""


def test_runs_are_plotted(recipe: Path, output: str, tmp_path: Path) -> None:
    import xml.etree.ElementTree as tree

    folder = recipe.parent / "runs" / "mine"
    for quantity in SUPERVISED:
        target = tmp_path / f"{quantity}.svg"
        assert "of 2 runs" in chaku("runs", "plot", folder, folder, "--of", quantity, "-o", target).output
        root = tree.parse(target).getroot()
        lines = [each.attrib["points"].split() for each in root.iter("{http://www.w3.org/2000/svg}polyline")]
        assert [len(line) for line in lines] == ([2, 2] if quantity == "heldout_loss" else [6, 6]), quantity
        assert "step" in [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
    chaku("runs", "plot", folder, "-o", tmp_path / "losses.html")
    page = (tmp_path / "losses.html").read_text()
    assert "default-src 'none'" in page and "<svg " in page and "<td>6</td>" in page and "<script" not in page


def test_a_quantity_that_was_not_logged_is_not_plotted(recipe: Path, output: str, tmp_path: Path) -> None:
    shutil.copytree(recipe.parent / "runs" / "mine", tmp_path / "young")
    log = tmp_path / "young" / "log.jsonl"
    log.write_text(log.read_text().replace('"heldout_loss"', '"other"'))
    with pytest.raises(UsageError, match="young: no heldout_loss is logged yet"):
        chaku("runs", "plot", tmp_path / "young", "--of", "heldout_loss")


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([1, 30], [0, 10, 20, 30]),
        ([5.1, 5.6], [5.1, 5.2, 5.3, 5.4, 5.5, 5.6]),
        ([3.0], [1, 2, 3, 4, 5]),
        ([0.0], [-0.6, -0.4, -0.2, 0, 0.2, 0.4, 0.6]),
        ([2e-6, 2e-5], [0, 5e-6, 1e-5, 1.5e-5, 2e-5]),
    ],
)
def test_axes_have_round_numbers_around_the_values(values: list[float], shown: list[float]) -> None:
    assert ticks(values) == pytest.approx(shown)


def test_a_finished_run_says_so_and_bare_resume_means_auto(recipe: Path, output: str) -> None:
    for words in (("--resume", recipe), (recipe, "--resume"), (recipe, "--resume", "auto")):
        result = chaku("train", *words)
        assert result.exit_code == 0 and "mine is finished: " in result.output
        assert "resuming" not in result.output


@pytest.mark.parametrize("name", ["../k2", "a/b", "..", "a\\b"])
def test_a_name_that_leaves_the_runs_folder_is_refused(recipe: Path, name: str) -> None:
    with pytest.raises(UsageError, match="is not a name for a run's folder"):
        chaku("train", recipe, "--set", f"name={name}", "--dry-run")


def test_a_recipe_that_is_not_there_is_said_without_options_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"can't read .*nofile\.yaml: No such file") as refused:
        chaku("train", tmp_path / "nofile.yaml")
    assert "--config" not in str(refused.value)


def test_an_example_recipe_is_one(tmp_path: Path) -> None:
    from chaku.train.config import read_recipe, train_config

    written = tmp_path / "first.yaml"
    assert "holds an example" in chaku("train", written, "--init").output
    assert train_config(read_recipe(written)).preset == "tiny"
    with pytest.raises(UsageError, match="exists"):
        chaku("train", written, "--init")


def test_presets_are_listed() -> None:
    output = chaku("train", "--presets").output
    assert "vicuna-7b-16k  " in output and "adapters over a base held in 4 bits" in output
