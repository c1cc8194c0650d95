"""A recipe: which settings it gives a built set, and how it is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaku.data import build as build_module
from chaku.errors import ConfigError
from data.made import sharegpt, write_lines


def test_a_recipe_with_a_base_is_tokenised_for_it_unless_it_says_otherwise(tmp_path):
    from chaku.data.recipe import load_data

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("base: models/llama\ndata: {context: 128}\n")
    assert load_data(recipe, {}).config.tokenizer == "models/llama"
    assert load_data(recipe, {"tokenizer": "other"}).config.tokenizer == "other"
    recipe.write_text("base: models/llama\ndata: {tokenizer: mine}\n")
    assert load_data(recipe, {}).config.tokenizer == "mine"


def test_one_recipe_is_one_set_by_every_command(tmp_path, tokenizer, monkeypatch):
    from click.testing import CliRunner

    from chaku.cli.data import data as commands
    from chaku.cli.training_set import training_set
    from chaku.train.config import read_recipe
    from data.made import digests

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(build_module, "num_cores", lambda: 1)
    source = write_lines(tmp_path / "in.jsonl", sharegpt(6))
    recipe = tmp_path / "recipe.yaml"
    section = f"{{inputs: [{source}], tokenizer: {tokenizer}, test_fraction: 0.2, context: 512}}"
    recipe.write_text(f"name: kusi\ndata: {section}\ntrain: {{preset: vicuna-7b-16k}}\n")
    by_training = training_set(read_recipe(recipe))
    output = CliRunner().invoke(commands, ["build", "--recipe", str(recipe), "-o", "set", "--processes", "1"])
    assert output.exit_code == 0, output.output
    assert "template = vicuna_v1.1  (preset vicuna-7b-16k)" in output.output
    assert digests(tmp_path / "set") == digests(by_training)


def test_a_set_unlike_its_preset_is_told_apart():
    from chaku.data.recipe import DataConfig, Recipe, differences

    built = {"config": DataConfig(template="vicuna_v1.1").model_dump(mode="json")}
    recipe = Recipe(data=Path("set"), train={"preset": "vicuna-7b-16k"})
    assert differences(recipe, built) == ["the set has context 2048, preset vicuna-7b-16k has 16384"]
    assert differences(Recipe(data=Path("set"), train={"preset": "vicuna-7b"}), built) == []


def test_a_file_where_a_recipe_wants_a_set_is_called_a_file(tmp_path):
    from chaku.data.recipe import Recipe, data_config

    source = write_lines(tmp_path / "in.jsonl", sharegpt(1))
    with pytest.raises(ConfigError, match=r"data is the file .*in\.jsonl"):
        data_config(Recipe(data=source))


def test_unknown_keys_in_a_recipe_name_the_nearest(tmp_path):
    from chaku.data.recipe import load_data

    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("name: x\ndata:\n  contxt: 128\n")
    with pytest.raises(ConfigError, match="did you mean context"):
        load_data(recipe, {})
    recipe.write_text("name: x\ndata:\n  rules: {refusals: drop}\n")
    with pytest.raises(ConfigError, match="did you mean refusal"):
        load_data(recipe, {})
    recipe.write_text("name: x\ndata:\n  context: 128\n  seed: 3\ntrain: {lr: 1}\n")
    loaded = load_data(recipe, {"seed": 4})
    assert loaded.config.tokenizer == "smollm2-135m"
    assert (loaded.config.context, loaded.config.seed) == (128, 4)
    assert (loaded.origins["context"], loaded.origins["seed"], loaded.origins["pack"]) == (
        str(recipe),
        "flag",
        "default",
    )
