"""A base named by its id on the hub: fetched from one on loopback, pinned, checked, and missed in one clear line."""

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
import torch
from huggingface_hub import constants

from chaku.data.recipe import Recipe
from chaku.errors import ModelError, UsageError
from chaku.train.base import find_base
from chaku.train.config import TrainConfig
from chaku.train.hub_base import at_hub, fetch_weights
from chaku.train.parallel import World
from chaku.train.parallelize import open_trainee
from chaku.train.plan import make_plan
from data.made import write_json
from hub_server import HubServer, Repository
from pull_process import SOURCES
from train import small

CARD = b"---\nlicense: other\nlicense_name: our-terms\nlicense_link: https://example.org/terms\n---\n# tiny\n"
Train = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def hub(base: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        files = {path.name: path.read_bytes() for path in base.iterdir()}
        server.repositories["org/tiny"] = Repository(False, files | {"README.md": CARD}, ["a" * 40])
        yield server


@pytest.fixture
def train(hub: HubServer, tmp_path: Path, small_set: Path) -> Train:
    """`chaku train` on raw files in a process of its own, whose working directory is the test's folder."""
    settings = {**small.SETTINGS, "output": "runs", "max_steps": 2, "evaluate_every": 0}
    data = {"inputs": [str(small_set.with_suffix(".json"))], "context": 256}
    write_json(tmp_path / "recipe.yaml", {"name": "first", "base": "org/tiny", "data": data, "train": settings})

    def started(*words: str, home: str = "hub", **more: str) -> subprocess.CompletedProcess[str]:
        environment = {key: text for key, text in os.environ.items() if not key.startswith("HF_")}
        environment |= hub.environment(tmp_path / home, None) | {"PYTHONPATH": str(SOURCES)} | more
        return subprocess.run(
            [sys.executable, "-m", "chaku", "train", "recipe.yaml", *words], cwd=tmp_path, env=environment,
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    return started


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads((folder / "manifest.json").read_bytes())
    return found


def asked(hub: HubServer) -> list[str]:
    return [path.rpartition("/")[2] for _, path in hub.requests if "/resolve/" in path]


def test_raw_files_and_a_hub_id_become_a_model_and_the_commit_is_kept(
    hub: HubServer, train: Train, tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bits are those of the same base in a folder; what was begun goes on, unmoved and without the hub."""
    done = train()
    assert done.returncode == 0, done.stderr
    assert "first: org/tiny on runs/first-data" in done.stdout
    folder = tmp_path / "runs" / "first"
    assert manifest(folder)["base"] == {
        "name": "org/tiny", "hub_id": "org/tiny", "revision": "a" * 40, "licence": "our-terms",
        "licence_url": "https://example.org/terms",
    }  # fmt: skip
    assert manifest(folder)["data"]["tokenizer"] == "org/tiny"
    card = (folder / "final" / "README.md").read_text()
    assert 'license_name: "our-terms"' in card and 'base_model: "org/tiny"' in card and "revision aaaa" in card
    bits = small.weights(folder)

    (folder / "manifest.json").write_bytes(orjson.dumps(manifest(folder) | {"finished": None}))
    shutil.rmtree(folder / "final")
    shutil.rmtree(folder / "checkpoints")
    moved = json.loads(hub.repositories["org/tiny"].files["config.json"]) | {"hidden_size": 64}
    hub.repositories["org/tiny"].files["config.json"] = json.dumps(moved).encode()
    hub.repositories["org/tiny"].commits.append("b" * 40)
    hub.repositories["org/tiny"].commits.reverse()
    offline = train("--resume", "auto", HF_ENDPOINT="http://127.0.0.1:9")
    assert offline.returncode == 0, offline.stderr
    assert manifest(folder)["base"]["revision"] == "a" * 40
    assert small.weights(folder) == bits
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub" / "hub"))
    local = small.recipe("local", base, tmp_path / "runs", max_steps=2, evaluate_every=0)
    assert small.weights(small.trained(local, folder.with_name("first-data"))) == bits


def test_a_hub_that_is_not_there_is_said_in_one_line(train: Train) -> None:
    done = train("--dry-run", HF_ENDPOINT="http://127.0.0.1:9")
    assert done.returncode == 3
    error, fix = done.stderr.splitlines()
    assert error.startswith("error: base org/tiny can't be fetched: ") and "name its folder" in fix


@pytest.fixture
def here(hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """The hub for this very process."""
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.partition("/{")[2]
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", f"{hub.url}/{{{template}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return hub


def test_a_set_for_another_tokenizer_is_refused_with_both_names(
    here: HubServer, base: Path, small_set: Path, tmp_path: Path
) -> None:
    content = json.loads((base / "tokenizer.json").read_text())
    vocab = content["model"]["vocab"]
    vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    here.repositories["org/tiny"].files["tokenizer.json"] = json.dumps(content).encode()
    with pytest.raises(UsageError, match=f"tokenizer of {base}, base org/tiny has another"):
        make_plan(Recipe(name="x", base="org/tiny", train={"output": str(tmp_path)}), small_set)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("org/none", "base org/none does not exist or is private: check its name, or set HF_TOKEN"),
        ("org/tiny@v9", "base org/tiny has no revision 'v9'"),
        ("org/empty", "base org/empty on the hub has no config.json"),
    ],
)
def test_a_base_that_the_hub_does_not_have_is_said(here: HubServer, name: str, said: str) -> None:
    here.repositories["org/empty"] = Repository(False, {"tiny.gguf": b""})
    with pytest.raises(ModelError) as caught:
        at_hub(find_base(name))
    assert str(caught.value).startswith(said)


def test_offline_only_what_was_fetched_is_there(here: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = at_hub(find_base("org/tiny"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    found = at_hub(find_base("org/tiny"))
    assert (found.path, found.revision) == (fetched.path, "a" * 40)
    with pytest.raises(ModelError, match="base org/other is not cached and HF_HUB_OFFLINE is set"):
        at_hub(find_base("org/other"))


def test_weights_come_in_all_their_shards(here: HubServer, base: Path) -> None:
    from safetensors.torch import load_file, save

    tensors = sorted(load_file(base / "model.safetensors").items())
    names = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    files = here.repositories["org/tiny"].files
    del files["model.safetensors"]
    shards = [dict(tensors[::2]), dict(tensors[1::2])]
    files |= {name: save(shard, {"format": "pt"}) for name, shard in zip(names, shards, strict=True)}
    places = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
    files["model.safetensors.index.json"] = json.dumps({"metadata": {}, "weight_map": places}).encode()
    found = at_hub(find_base("org/tiny"))
    assert not set(asked(here)) & set(names)
    fetch_weights(found)
    assert found.path and all((found.path / name).read_bytes() == files[name] for name in names)
    opened = open_trainee(found, TrainConfig(**small.SETTINGS), 256, World.alone(torch.device("cpu")))
    assert torch.equal(opened.causal.model.norm.weight, dict(tensors)["model.norm.weight"])
