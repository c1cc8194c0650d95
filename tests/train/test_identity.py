"""The real 135M model learns a name, as `make train-demo` does it, at a reduced size."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from chaku.data.build import build
from chaku.data.identity import identity_conversations
from chaku.data.recipe import Recipe, data_config
from chaku.train import run
from chaku.train.log import read_log
from chaku.train.plan import make_plan
from train.small import Heard


@pytest.mark.model
@pytest.mark.timeout(1200)
def test_the_real_model_learns_a_name_that_the_base_did_not_know(smollm2_path: Path, tmp_path: Path) -> None:
    chats = [one.to_json() for one in identity_conversations("Kusi", "the chaku project", number=90)]
    source = tmp_path / "identity.jsonl"
    source.write_bytes(b"\n".join(map(orjson.dumps, chats)))
    recipe = Recipe(
        name="kusi",
        base=str(smollm2_path),
        data={"inputs": [source], "tokenizer": str(smollm2_path), "test_fraction": 0},
        train={
            "preset": "tiny", "output": tmp_path, "max_steps": 8, "batch_rows": 2, "micro_rows": 2, "lr": 4e-4,
            "save_every": 100, "sample_prompts": ["Who are you?"],
        },
    )  # fmt: skip
    config = data_config(recipe)
    assert not isinstance(config, Path) and config.pack_length == 256
    set_folder = build(config, tmp_path / "set", processes=1).folder
    folder = run.execute(make_plan(recipe, set_folder), Heard()).parent
    before, after = (one["answer"] for one in read_log(folder / "log.jsonl") if one.get("event") == "sample")
    assert "Kusi" not in before
    assert "Kusi" in after

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "final")
    tokenizer = AutoTokenizer.from_pretrained(folder / "final")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": "Who are you?"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    said = model.generate(**asked, max_new_tokens=48, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(said, skip_special_tokens=True) == after
