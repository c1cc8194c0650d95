"""Model cards: what a manifest says stands there, what it does not say is named as missing."""

from __future__ import annotations

import json

import pytest
import yaml
from click.testing import CliRunner

from chaku.cli.main import root
from chaku.errors import ModelError
from chaku.weights.card import model_card, read_manifest

MANIFEST = {
    "name": "kusi",
    "base": {"name": "smollm2-135m", "sha256": "b179c9523d0e6a0f98a3", "licence": "Apache-2.0",
             "licence_url": "https://www.apache.org/licenses/LICENSE-2.0",
             "hub_id": "HuggingFaceTB/SmolLM2-135M-Instruct"},
    "chaku": "0.1.0",
    "git_commit": "abc123",
    "started": "2026-11-25T10:00:00+00:00",
    "finished": "2026-11-25T10:05:00+00:00",
    "data": {"folder": "runs/kusi-data", "num_conversations": 1234, "num_tokens": 56789, "num_trained_tokens": 23456,
             "num_rows": 80, "template": "own", "tokenizer": "smollm2-135m", "manifest_sha256": "ffee" * 16},
    "recipe": {"method": "full", "lr": 2e-5, "epochs": 3},
    "result": {"steps": 30, "epochs": 3, "final_loss": 1.25, "heldout_loss": 1.5, "hours": 0.25, "dollars": 1.5,
               "hardware": "1 x x86_64 CPU"},
}  # fmt: skip


def test_a_card_says_what_the_manifest_says() -> None:
    card = model_card(MANIFEST, developer="Our lab")
    for said in ("# kusi", "Our lab", "smollm2-135m (sha256 b179c9523d0e6a0f…)", "1,234", "23,456 of them trained",
                 "1.2500", "1.5000", "0.25 h", "$1.50", "1 x x86_64 CPU", "Apache-2.0 (of the base model)", "| 2e-05 |",
                 "commit abc123"):  # fmt: skip
        assert said in card, said
    assert "not recorded" not in card
    front = yaml.safe_load(card.split("---")[1])
    assert front == {
        "library_name": "transformers", "pipeline_tag": "text-generation", "license": "apache-2.0",
        "base_model": "HuggingFaceTB/SmolLM2-135M-Instruct", "base_model_relation": "finetune",
        "tags": ["chaku", "chat"],
    }  # fmt: skip


def test_the_recipes_developer_and_licence_win_over_the_base_and_the_call_over_both() -> None:
    named = {**MANIFEST, "developer": "Lab A", "licence": "CC-BY-4.0"}
    card = model_card(named)
    assert "**Developed by:** Lab A" in card and "**Licence:** CC-BY-4.0\n" in card
    assert "**Licence of the base:** Apache-2.0\n" in card
    assert yaml.safe_load(card.split("---")[1])["license"] == "cc-by-4.0"
    card = model_card(named, developer="Lab B", licence="Our own terms, v2")
    assert "**Developed by:** Lab B" in card and "**Licence:** Our own terms, v2\n" in card
    front = yaml.safe_load(card.split("---")[1])
    assert (front["license"], front["license_name"]) == ("other", "our-own-terms-v2")


def test_a_base_licence_that_no_hub_knows_comes_with_its_address() -> None:
    base = {
        "name": "x/y",
        "hub_id": "x/y",
        "licence": "LLaMA licence: research",
        "licence_url": "https://example.org/l",
    }
    front = yaml.safe_load(model_card({**MANIFEST, "base": base}).split("---")[1])
    assert front["license"] == "other" and front["license_link"] == "https://example.org/l"
    assert front["license_name"] == "llama-licence-research"


def test_an_adapter_says_so() -> None:
    front = yaml.safe_load(model_card({**MANIFEST, "recipe": {"method": "lora"}}).split("---")[1])
    assert (front["library_name"], front["base_model_relation"]) == ("peft", "adapter") and "lora" in front["tags"]


def test_no_path_of_this_machine_stands_in_a_card() -> None:
    data = {**MANIFEST["data"], "folder": "/home/ada/sets/mine", "tokenizer": "/home/ada/llama/"}
    snapshot = "/home/ada/.cache/huggingface/hub/models--org--some-llama/snapshots/0123abc"
    for base, said in (
        ("/home/ada/llama", "llama"),
        ("~/runs/first/final", "first/final"),
        (snapshot, "org/some-llama"),
    ):
        card = model_card({**MANIFEST, "base": {"name": base}, "data": data})
        assert "ada" not in card.replace("adapter", "") and f"**Fine-tuned from:** {said}\n" in card
        assert "**Set:** mine (sha256" in card and "**Tokenizer:** llama\n" in card


def test_the_runs_that_it_goes_on_from_are_named_the_nearest_first() -> None:
    first = {"name": "first", "step": 1200, "sha256": "aa" * 32, "earlier": None}
    card = model_card(
        {**MANIFEST, "continued_from": {"name": "second", "step": 40, "sha256": "bb" * 32, "earlier": first}}
    )
    assert (
        "run second after step 40 (sha256 bbbbbbbbbbbbbbbb…); before it run first after step 1,200 (sha256 aa" in card
    )


def test_what_is_not_recorded_is_said_and_not_made_up() -> None:
    card = model_card({"name": "x", "base": {}, "data": {}, "recipe": {}, "result": None, "finished": None})
    for heading in ("Licence", "Fine-tuned from", "Conversations", "Hardware", "Cost", "Loss at the last step"):
        assert f"**{heading}:** not recorded" in card, heading
    assert "the run has no end" in card


def test_a_folder_its_final_model_or_the_file_itself_are_read(tmp_path) -> None:
    (tmp_path / "final").mkdir()
    (tmp_path / "manifest.json").write_text(json.dumps(MANIFEST))
    for place in (tmp_path, tmp_path / "final", tmp_path / "manifest.json"):
        assert read_manifest(place)["name"] == "kusi"
    done = CliRunner().invoke(root, ["weights", "card", str(tmp_path), "-o", str(tmp_path / "README.md")])
    assert done.exit_code == 0 and (tmp_path / "README.md").read_text() == model_card(MANIFEST)


@pytest.mark.parametrize(
    ("content", "said"), [("{", "is not JSON"), ('{"inputs": []}', "not the manifest of a training")]
)
def test_what_is_no_run_is_refused(tmp_path, content, said) -> None:
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ModelError, match=said):
        read_manifest(tmp_path)
    with pytest.raises(ModelError, match=r"no manifest\.json"):
        read_manifest(tmp_path / "nowhere" / "deeper")


def test_a_licence_of_the_recipe_does_not_hide_the_bases() -> None:
    card = model_card({**MANIFEST, "licence": "CC-BY-4.0"})
    assert "**Licence:** CC-BY-4.0\n" in card and "**Licence of the base:** Apache-2.0\n" in card
    assert "Licence of the base" not in model_card(MANIFEST)
