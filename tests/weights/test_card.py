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
    "base": {"name": "smollm2-135m", "sha256": "b179c9523d0e6a0f98a3", "licence": "Apache-2.0"},
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
    assert front["base_model"] == "smollm2-135m" and front["license_name"] == "Apache-2.0"


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
