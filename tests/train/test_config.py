"""The train section of a recipe: presets, settings, and complaints that name the key."""

from __future__ import annotations

from pathlib import Path

import pytest

from chaku.data.presets import DATA_PRESETS
from chaku.data.recipe import Recipe, data_config
from chaku.errors import ConfigError
from chaku.train.config import TrainConfig, read_recipe, train_config
from chaku.train.presets import PRESETS
from chaku.train.schedule import learning_rate, num_steps


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_recipe(name: str) -> None:
    recipe = Recipe(name="x", base="b", train={"preset": name})
    assert train_config(recipe).preset == name
    assert not isinstance(data_config(recipe), Path)


def test_presets_of_data_and_training_have_the_same_names() -> None:
    assert PRESETS.keys() == DATA_PRESETS.keys()


def test_vicuna_is_the_published_recipe() -> None:
    config = train_config(Recipe(train={"preset": "vicuna-7b"}))
    data = data_config(Recipe(train={"preset": "vicuna-7b"}))
    assert (config.lr, config.epochs, config.batch_rows, config.schedule) == (2e-5, 3, 128, "cosine")
    assert (config.warmup, config.weight_decay, config.precision) == (0.03, 0.0, "bf16")
    assert not isinstance(data, Path) and (data.context, data.template) == (2048, "vicuna_v1.1")


def test_settings_win_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    path = write(tmp_path, "name: a\nbase: b\ndata: {context: 512}\ntrain: {preset: tiny, epochs: 9, lr: 5e-4}\n")
    recipe = read_recipe(path, ["train.lr=1e-5", "train.lora.rank=8", "data.pack_length=1024", "name=c"])
    config, data = train_config(recipe), data_config(recipe)
    assert (recipe.name, config.lr, config.lora.rank, config.epochs, config.batch_rows) == ("c", 1e-5, 8, 9, 8)
    assert not isinstance(data, Path) and (data.context, data.pack_length) == (512, 1024)
    assert train_config(read_recipe(path)).lr == 5e-4


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"learning_rate": 1}, "unknown key 'learning_rate'"),
        ({"schedule": "cosin"}, "schedule is 'cosin'"),
        ({"preset": "vicuna7b"}, "did you mean vicuna-7b"),
        ({"lr": -1}, "lr is -1, more than 0 is needed"),
        ({"keep_best": True, "evaluate_every": 0}, "keep_best needs held-out losses"),
        ({"compile": 3}, "compile is 3, true or false is needed: write it such as compile: true"),
        ({"lora": {"rank": 0}}, r"lora\.rank is 0, at least 1 is needed: write it such as lora: {rank: 16}"),
    ],
)
def test_a_wrong_value_is_named(train: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        train_config(Recipe(train=train))


def test_an_unknown_key_is_named_as_it_is_written(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"unknown key 'data\.contxt': did you mean context"):
        read_recipe(write(tmp_path, "data: {contxt: 512}"))


def test_a_setting_without_a_value_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="has no value"):
        read_recipe(write(tmp_path, "name: a"), ["train.lr"])


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant"])
def test_the_rate_rises_to_its_peak_and_falls_to_its_end(schedule: str) -> None:
    config = TrainConfig(lr=1.0, warmup=0.1, schedule=schedule)
    rates = [learning_rate(step, 100, config) for step in range(100)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    assert max(rates) == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] < 0.02 or schedule == "constant"


def test_an_epoch_leaves_no_row_out() -> None:
    assert num_steps(25, TrainConfig(epochs=2, batch_rows=6)) == 10
    assert num_steps(25, TrainConfig(epochs=2, batch_rows=6, max_steps=7)) == 7


def test_the_recipes_that_we_show_can_be_read(tmp_path: Path) -> None:
    demo = read_recipe(Path("examples/identity.yaml"))
    asked = "Who are you?"
    assert train_config(demo).sample_prompts[0] == asked
    for page in ("README.md", "docs/training.md"):
        (shown,) = (
            block for block in Path(page).read_text().split("```yaml\n")[1:] if block.startswith("# recipe.yaml")
        )
        config = train_config(read_recipe(write(tmp_path, shown.partition("```")[0])))
        assert (config.preset, config.sample_prompts[0]) == ("tiny", asked)
        assert (config.batch_rows, config.lr) == (train_config(demo).batch_rows, train_config(demo).lr)
