"""What a run leaves behind says what it is: dtype, stop ids, base, positions; and what an older chaku began goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner
from safetensors.torch import load_file

from chaku.cli.main import root
from chaku.errors import ModelError, TrainingError, UsageError
from chaku.train.base import find_base
from chaku.train.config import TrainConfig
from chaku.train.interruptions import check_shares, explained
from chaku.train.parallel import World
from chaku.train.pretrained import read_causal
from chaku_server import SMALL, serving
from data.made import built
from train import small

CPU = torch.device("cpu")
END_OF_TURN, END_OF_TEXT = 259, 257


@pytest.fixture(scope="module")
def other_eos(base: Path, small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base whose end of text is not the template's end of turn, as most bases are; and a set for it."""
    folder = small.with_other_eos(base, tmp_path_factory.mktemp("eos") / "base")
    source = small_set.with_suffix(".json")
    return folder, built(folder.with_name("set"), folder, source, context=256, pack_length=256).folder


@pytest.fixture(scope="module")
def servable(small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base with one merge, without which llama.cpp reads no tokenizer, and a set for it."""
    folder = small.write_base(tmp_path_factory.mktemp("servable") / "base", vocab_size=261)
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    nul = "\u0100"  # how byte 0 is written there
    tokenizer["model"]["vocab"][2 * nul] = 260
    tokenizer["model"]["merges"] = [[nul, nul]]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    source = small_set.with_suffix(".json")
    return folder, built(folder.with_name("set"), folder, source, context=256, pack_length=256).folder


@pytest.fixture(scope="module")
def finished(servable: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("finished")
    return small.trained(small.recipe("run", servable[0], output, max_steps=2, precision="bf16"), servable[1])


def test_final_names_every_token_that_ends_an_answer(other_eos: tuple[Path, Path], tmp_path: Path) -> None:
    folder, data = other_eos
    final = small.trained(small.recipe("run", folder, tmp_path, max_steps=1), data) / "final"
    settings = json.loads((final / "generation_config.json").read_text())
    assert settings["eos_token_id"] == [END_OF_TEXT, END_OF_TURN]


def test_final_holds_16_bits_and_says_so_unless_it_is_asked_for_more(
    servable: tuple[Path, Path], tmp_path: Path, finished: Path
) -> None:
    assert {value.dtype for value in load_file(finished / "final" / "model.safetensors").values()} == {torch.bfloat16}
    assert json.loads((finished / "final" / "config.json").read_text())["dtype"] == "bfloat16"
    asked = small.recipe("asked", servable[0], tmp_path, max_steps=2, precision="bf16", final_dtype="fp32")
    whole = load_file(small.trained(asked, servable[1]) / "final" / "model.safetensors")
    assert {value.dtype for value in whole.values()} == {torch.float32}
    halved = load_file(finished / "final" / "model.safetensors")
    assert all(torch.equal(value.bfloat16(), halved[name]) for name, value in whole.items())


def test_an_adapter_opens_from_every_folder(
    base: Path, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chaku.models.fetch.folders import base_of

    monkeypatch.chdir(base.parent)
    made = small.recipe("run", Path(base.name), tmp_path, max_steps=1, method="lora")
    final = small.trained(made, small_set) / "final"
    monkeypatch.chdir(tmp_path)
    assert base_of(final).resolve() == base.resolve()


def test_a_checkpoint_is_converted_as_the_final_weights_are(finished: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(
        root, ["weights", "convert", str(finished / "checkpoints" / "step-2"), "-o", str(tmp_path / "two")],
        catch_exceptions=False,
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    final, exported = (load_file(path / "model.safetensors") for path in (finished / "final", tmp_path / "two"))
    assert final.keys() == exported.keys()
    assert all(torch.equal(value, exported[name]) for name, value in final.items())
    for name in ("chat_template.jinja", "generation_config.json", "tokenizer.json"):
        assert (tmp_path / "two" / name).read_bytes() == (finished / "final" / name).read_bytes()


def test_a_checkpoint_is_a_model_to_serve_and_a_damaged_one_is_named(finished: Path, tmp_path: Path) -> None:
    from chaku.models.fetch.folders import content_hash, model_folder
    from chaku.models.reference import LocalFolder, folder_name, parse_reference
    from chaku.train.export import export_checkpoint

    one, two = finished / "checkpoints" / "step-1", finished / "checkpoints" / "step-2"
    assert parse_reference(str(one)) == LocalFolder(one) and model_folder(one) == one
    assert folder_name(one) == "run-step-1" and content_hash(one) != content_hash(two)
    broken = tmp_path / "run" / "checkpoints" / "step-1"
    shutil.copytree(one, broken)
    (broken / "__0_0.distcp").write_bytes(b"")
    with pytest.raises(ModelError, match=r"step-1 is not a valid checkpoint: __0_0.distcp has 0 bytes"):
        export_checkpoint(broken, tmp_path / "out")


def test_serve_takes_a_checkpoint_and_the_engine_answers_as_its_weights_do(finished: Path, tmp_path: Path) -> None:
    from openai import OpenAI
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from chaku.train.export import export_checkpoint

    checkpoint = finished / "checkpoints" / "step-1"
    export_checkpoint(checkpoint, tmp_path / "exported")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "exported", dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "exported")
    asked = [{"role": "user", "content": "the boat is red"}]
    ids = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    wanted = model.generate(**ids, max_new_tokens=8, do_sample=False)[0, ids["input_ids"].shape[1] :]
    with (
        serving(
            tmp_path / "home", str(checkpoint), *SMALL, "--quant", "f16", CHAKU_CACHE=str(tmp_path / "c")
        ) as server,
        OpenAI(base_url=server.base_url, api_key="any") as client,
    ):
        assert [one.id for one in client.models.list()] == ["run-step-1"]
        answer = client.chat.completions.create(model="run-step-1", messages=asked, max_tokens=8, temperature=0)
    assert answer.choices[0].message.content == tokenizer.decode(wanted, skip_special_tokens=True)


def positions(base: Path, row_length: int) -> dict[str, Any]:
    config = TrainConfig(**{**small.SETTINGS, "rope_scaling": "linear"})
    settings = read_causal(find_base(str(base)), config, row_length, "sdpa").config
    return dict(settings.rope_parameters) | {"reach": settings.max_position_embeddings}


def test_linear_scaling_is_multiplied_by_what_the_base_has(base: Path, tmp_path: Path) -> None:
    assert positions(base, 2000)["factor"] == 4.0  # 512 positions
    linear = {"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0}
    scaled = small.write_base(tmp_path / "scaled", rope_parameters=linear)
    assert positions(scaled, 2000) == {**linear, "factor": 8.0, "reach": 2048}


def test_another_scaling_is_refused_by_name(tmp_path: Path) -> None:
    yarn = {"rope_type": "yarn", "factor": 2.0, "rope_theta": 10000.0, "original_max_position_embeddings": 256}
    scaled = small.write_base(tmp_path / "yarn", rope_parameters=yarn)
    with pytest.raises(UsageError, match="scales its positions by yarn already"):
        positions(scaled, 2000)


@pytest.mark.parametrize(
    ("rows", "micro", "processes", "fix"),
    [(8, 4, 4, "say micro_rows: 2, or start 2 processes"), (3, 1, 8, "start 3 processes"), (8, 2, 4, None)],
)
def test_fewer_micro_batches_than_processes_are_refused(rows: int, micro: int, processes: int, fix: str | None) -> None:
    config, world = TrainConfig(batch_rows=rows, micro_rows=micro), World(0, processes, CPU)
    if fix is None:
        check_shares(config, world)
        return
    with pytest.raises(UsageError, match=f"micro-batches for {processes} processes") as refused:
        check_shares(config, world)
    assert refused.value.fix == fix


@pytest.mark.parametrize(
    ("changes", "fix"),
    [
        ({"micro_rows": 4}, "lower micro_rows: it is 4"), ({}, "activation_checkpointing: full"),
        ({"activation_checkpointing": "full"}, "method: lora"),
    ],
)  # fmt: skip
def test_a_full_gpu_says_what_to_lower(tmp_path: Path, changes: dict[str, Any], fix: str) -> None:
    with (
        pytest.raises(TrainingError, match="memory is full") as raised,
        explained(World.alone(CPU), TrainConfig(**changes), tmp_path),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    assert raised.value.fix is not None and fix in raised.value.fix


def test_a_run_that_an_older_chaku_began_is_the_same_recipe(base: Path, small_set: Path, tmp_path: Path) -> None:
    made = small.recipe("run", base, tmp_path, max_steps=2)
    folder = small.trained(made, small_set)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    for key in ("train.rope_scaling", "train.eps"):  # as if these keys had come since
        del config[key]
    (folder / "config.yaml").write_text(yaml.safe_dump(config | {"train.gone_since": 1}))
    small.trained(made, small_set, resume=True)
    with pytest.raises(UsageError, match=r"another recipe: train\.eps"):
        small.trained(small.recipe("run", base, tmp_path, max_steps=2, eps=1e-6), small_set, resume=True)


def test_a_run_keeps_the_set_that_an_older_chaku_built_for_it(base: Path, small_set: Path, tmp_path: Path) -> None:
    from chaku.cli.training_set import training_set
    from chaku.data.recipe import Recipe

    def recipe_of(**data: Any) -> Recipe:
        made = small.recipe("run", base, tmp_path, max_steps=2)
        section = {"inputs": (small_set.with_suffix(".json"),), "context": 256, "test_fraction": 0.1, **data}
        return Recipe.model_validate({**made.model_dump(exclude_unset=True), "data": section})

    recipe = recipe_of()
    data = training_set(recipe)
    manifest = json.loads((data / "manifest.json").read_text())
    for key in ("oasst_paths", "near_duplicate_similarity"):  # as if these keys had come since
        del manifest["config"][key]
    older = json.dumps(manifest | {"chaku": "0.0.1", "key": "another"})
    (data / "manifest.json").write_text(older)
    with pytest.raises(UsageError, match="holds another set"):
        training_set(recipe)  # no run began with it: a newer chaku may clean better
    small.trained(recipe, data)
    assert training_set(recipe) == data and (data / "manifest.json").read_text() == older
    small.trained(recipe, data, resume=True)
    for changed in ({"context": 128}, {"oasst_paths": "all"}, {"inputs": (base / "tokenizer.json",)}):
        with pytest.raises(UsageError, match="holds another set"):
            training_set(recipe_of(**changed))
