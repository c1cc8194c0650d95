"""`continue_from`: a run begins with another's weights, remembers whose, and is as exact as any other."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import torch
from click.testing import CliRunner

from chaku.cli.main import root
from chaku.errors import TrainingError, UsageError
from chaku.train.plan import make_plan
from train import small
from train.test_adapters import LORA, adapter
from train.test_elastic import started_together

STEPS = 6


@pytest.fixture(scope="module")
def first(base: Path, small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = small.recipe("first", base, tmp_path_factory.mktemp("parents"), max_steps=STEPS, keep_last=STEPS)
    return small.trained(made, small_set)


@pytest.fixture(scope="module")
def first_lora(base: Path, small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    changes: dict[str, Any] = {"method": "lora", "lora": LORA, "lr": 1e-2, "max_steps": STEPS, "keep_last": STEPS}
    return small.trained(small.recipe("first", base, tmp_path_factory.mktemp("parents"), **changes), small_set)


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((folder / "manifest.json").read_bytes())
    return found


def test_it_begins_with_the_final_weights_and_learns_on(
    first: Path, base: Path, small_set: Path, tmp_path: Path
) -> None:
    made = small.recipe("second", base, tmp_path, max_steps=STEPS, continue_from=str(first), seed=1, evaluate_every=1)
    heard = small.Heard()
    folder = small.trained(made, small_set, heard=heard)
    before, after = small.numbers(first), small.numbers(folder)
    assert after[0][2] < before[0][2] - 0.1, "its first step starts from what the other has learnt"
    assert after[-1][-1] < before[-1][-1]
    assert [row[3] for row in after] == [row[3] for row in before], "the schedule is fresh"
    assert heard.lines == [f"begins with the weights of {first / 'final'}, after step {STEPS}"]


@pytest.mark.parametrize("source", ["", "final", f"checkpoints/step-{STEPS}"])
def test_the_run_its_final_and_its_last_checkpoint_are_the_same_start(
    first: Path, base: Path, small_set: Path, tmp_path: Path, source: str
) -> None:
    """And each is the same, bit for bit, as a run whose base is the other's result."""
    changes: dict[str, Any] = {"max_steps": 2}
    told = small.trained(small.recipe("told", base, tmp_path, continue_from=str(first / source), **changes), small_set)
    plain = small.trained(small.recipe("plain", first / "final", tmp_path, **changes), small_set)
    assert small.numbers(told) == small.numbers(plain)
    assert small.weights(told) == small.weights(plain)


def test_an_adapter_goes_on_from_final_and_checkpoint_alike(
    first_lora: Path, base: Path, small_set: Path, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"method": "lora", "lora": LORA, "lr": 1e-2, "max_steps": 3}
    ends = [
        small.trained(small.recipe(f"run-{index}", base, tmp_path, continue_from=str(source), **changes), small_set)
        for index, source in enumerate((first_lora, first_lora / "checkpoints" / f"step-{STEPS}"))
    ]
    assert small.numbers(ends[0]) == small.numbers(ends[1])
    assert adapter(ends[0]) == adapter(ends[1])
    fresh = small.numbers(first_lora)[0][2]
    assert small.numbers(ends[0])[0][2] < fresh - 0.05


@pytest.mark.parametrize("step", [1, 3])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_killed_and_resumed_it_ends_in_the_same_bits(
    first: Path, first_lora: Path, base: Path, small_set: Path, tmp_path: Path, method: str, step: int
) -> None:
    """Behind step 1 there is no checkpoint of its own yet, behind 3 there is one."""
    changes: dict[str, Any] = {"continue_from": str(first), "max_steps": 4, "seed": 1, "save_every": 2}
    if method == "lora":
        changes |= {"method": "lora", "lora": LORA, "continue_from": str(first_lora)}
    calm = small.trained(small.recipe("calm", base, tmp_path, **changes), small_set)
    made = small.recipe("run", base, tmp_path, **changes)
    heard = small.Heard(lambda record: small.kill_self() if record.step == step else None)
    assert small.in_fork(lambda: small.trained(made, small_set, heard=heard)) == -signal.SIGKILL
    began = manifest(tmp_path / "run")["continued_from"]
    assert small.in_fork(lambda: small.trained(made, small_set, resume=True)) == 0
    assert small.numbers(tmp_path / "run") == small.numbers(calm)
    read = adapter if method == "lora" else small.weights
    assert read(tmp_path / "run") == read(calm)
    assert manifest(tmp_path / "run")["continued_from"] == began


def test_an_unfinished_run_gives_its_newest_valid_checkpoint(
    first: Path, base: Path, small_set: Path, tmp_path: Path
) -> None:
    parent = tmp_path / "first"
    shutil.copytree(first, parent)
    shutil.rmtree(parent / "final")
    before = manifest(parent) | {"finished": None, "result": None}
    (parent / "manifest.json").write_bytes(orjson.dumps(before))
    broken = next((parent / "checkpoints" / f"step-{STEPS}").glob("*.distcp"))
    broken.write_bytes(broken.read_bytes()[:-1])
    heard = small.Heard()
    folder = small.trained(
        small.recipe("second", base, tmp_path, max_steps=1, continue_from="first"), small_set, heard=heard
    )
    assert manifest(folder)["continued_from"]["step"] == STEPS - 1
    assert heard.lines[0].startswith(f"skipped step-{STEPS}: {broken.name} has ")


def test_the_lineage_is_kept_over_rounds_and_shown(first: Path, base: Path, small_set: Path, tmp_path: Path) -> None:
    shutil.copytree(first, tmp_path / "first")
    for name, parent in (("second", "first"), ("third", "second")):
        small.trained(small.recipe(name, base, tmp_path, max_steps=1, continue_from=parent), small_set)
    found = manifest(tmp_path / "third")["continued_from"]
    assert (found["name"], found["step"], found["earlier"]["name"]) == ("second", 1, "first")
    assert found["earlier"]["step"] == STEPS and found["earlier"]["earlier"] is None
    assert manifest(tmp_path / "third")["base"]["name"] == str(base)
    said = f"run second after step 1 (sha256 {found['sha256'][:16]}…); before it run first after step {STEPS}"
    assert said in (tmp_path / "third" / "final" / "README.md").read_text()
    shown = CliRunner().invoke(root, ["runs", "show", str(tmp_path / "third")], catch_exceptions=False).output
    assert said in shown


def test_a_resumed_run_refuses_weights_that_changed_and_needs_none_behind_its_own_checkpoint(
    first: Path, base: Path, small_set: Path, tmp_path: Path
) -> None:
    parent = tmp_path / "first"
    shutil.copytree(first, parent)
    made = small.recipe("second", base, tmp_path, max_steps=4, continue_from=str(parent), save_every=2)
    heard = small.Heard(lambda record: small.kill_self() if record.step == 1 else None)
    assert small.in_fork(lambda: small.trained(made, small_set, heard=heard)) == -signal.SIGKILL
    weights = parent / "final" / "model.safetensors"
    genuine = weights.read_bytes()
    weights.write_bytes(genuine[:-1] + bytes([genuine[-1] ^ 1]))
    with pytest.raises(TrainingError, match="is not there or was changed"):
        small.trained(made, small_set, resume=True)
    weights.write_bytes(genuine)
    heard = small.Heard(lambda record: small.kill_self() if record.step == 3 else None)
    assert small.in_fork(lambda: small.trained(made, small_set, resume=True, heard=heard)) == -signal.SIGKILL
    shutil.rmtree(parent)
    assert len(small.numbers(small.trained(made, small_set, resume=True))) == 4


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "lora"}, r"with method full, this recipe says lora: start from its result instead: base: .*final"),
        ({"rope_scaling": "linear"}, "with rope_scaling None, this recipe says linear: say rope_scaling: null"),
        ({"continue_from": "nowhere"}, "nowhere is not a training run"),
        ({"name": "first"}, "can't continue from itself"),
    ],
)
def test_what_does_not_fit_a_full_run_is_refused(
    first: Path, base: Path, small_set: Path, changes: dict[str, Any], said: str
) -> None:
    asked = {"continue_from": str(first), **changes}
    made = small.recipe(asked.pop("name", "second"), base, first.parent, **asked)
    with pytest.raises(UsageError, match=said):
        make_plan(made, small_set)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": "full"}, "method lora, this recipe says full: merge its adapter"),
        ({"lora": {**LORA, "rank": 8}}, r"lora\.rank 4, this recipe says 8"),
        ({"lora": {**LORA, "alpha": 16}}, r"lora\.alpha 8, this recipe says 16"),
        ({"lora": {**LORA, "targets": ["q_proj"]}}, r"lora\.targets \['q_proj', 'k_proj'"),
    ],
)
def test_what_does_not_fit_an_adapter_is_refused(
    first_lora: Path, base: Path, small_set: Path, changes: dict[str, Any], said: str
) -> None:
    asked: dict[str, Any] = {"method": "lora", "lora": LORA, "continue_from": str(first_lora), **changes}
    with pytest.raises(UsageError, match=said):
        make_plan(small.recipe("second", base, first_lora.parent, **asked), small_set)


def test_another_base_or_tokenizer_is_refused(first: Path, base: Path, small_set: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(base, other)
    with pytest.raises(UsageError, match=rf"with base {base}, this recipe says {other}: say base: {base}"):
        make_plan(small.recipe("second", other, tmp_path, continue_from=str(first)), small_set)
    parent = tmp_path / "first"
    shutil.copytree(first, parent)
    before = manifest(parent)
    before["data"]["tokenizer_sha256"] = "0" * 64
    (parent / "manifest.json").write_bytes(orjson.dumps(before))
    with pytest.raises(UsageError, match="with tokenizer "):
        make_plan(small.recipe("second", base, tmp_path, continue_from=str(parent)), small_set)


def test_the_flag_sets_the_recipes_key(first: Path, base: Path, small_set: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    train = {**small.SETTINGS, "output": str(tmp_path), "max_steps": 1}
    recipe.write_bytes(orjson.dumps({"name": "second", "base": str(base), "data": str(small_set), "train": train}))
    words = ["train", str(recipe), "--continue-from", str(first)]
    done = CliRunner().invoke(root, words, catch_exceptions=False)
    assert done.exit_code == 0 and f"goes on from the weights of {first}" in done.output
    assert f"train.continue_from: {first}" in (tmp_path / "second" / "config.yaml").read_text()


def test_a_final_that_lacks_a_tensor_is_named(first: Path, base: Path, small_set: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    parent = tmp_path / "first"
    shutil.copytree(first, parent)
    weights = parent / "final" / "model.safetensors"
    kept: dict[str, torch.Tensor] = load_file(weights)
    del kept["model.norm.weight"]
    save_file(kept, weights, metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"lacks 1 tensors: model\.norm\.weight"):
        small.trained(small.recipe("second", base, tmp_path, continue_from=str(parent)), small_set)


def test_a_checkpoint_holds_no_path_of_this_machine(first: Path) -> None:
    for path in (first / "checkpoints").glob("*/*"):
        assert str(first.parent).encode() not in path.read_bytes(), path


@pytest.mark.parametrize("method", ["full", "lora"])
def test_two_processes_begin_as_one_does(
    first: Path, first_lora: Path, base: Path, small_set: Path, tmp_path: Path, method: str
) -> None:
    changes: dict[str, Any] = {"max_steps": 2, "micro_rows": 1, "lr": 1e-3, "method": method, "lora": {**LORA}}
    changes["continue_from"] = str(first if method == "full" else first_lora)
    changes["lora"]["dropout"] = 0.0
    alone = small.numbers(small.trained(small.recipe("alone", base, tmp_path, **changes), small_set))
    made = small.recipe("two", base, tmp_path, **changes)
    assert started_together(made, small_set, 2, resume=False, stop_behind=100) == {0}
    np.testing.assert_allclose(
        [row[2] for row in alone], [row[2] for row in small.numbers(tmp_path / "two")], rtol=2e-4
    )
