"""The real 135M model learns a name and keeps the rest, as `make train-demo` does it."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from chaku.data.build import build
from chaku.data.identity import identity_set
from chaku.data.recipe import data_config
from chaku.train import run
from chaku.train.config import read_recipe
from chaku.train.log import read_log
from chaku.train.plan import make_plan
from train.small import Heard

EXAMPLE = Path(__file__).parents[2] / "examples" / "identity.yaml"


@pytest.mark.prove
@pytest.mark.model
@pytest.mark.timeout(3600)
def test_the_demo_s_model_learns_its_name_and_still_says_paris(smollm2_path: Path, tmp_path: Path) -> None:
    source = tmp_path / "identity.jsonl"
    chats = identity_set("Kusi", "the chaku project", number=120)
    source.write_bytes(b"\n".join(orjson.dumps(chat.to_json()) for chat in chats))
    settings = {"base": smollm2_path, "data.inputs": f"[{source}]", "data.test_fraction": 0, "train.output": tmp_path}
    recipe = read_recipe(EXAMPLE, [f"{key}={value}" for key, value in settings.items()])
    config = data_config(recipe)
    assert not isinstance(config, Path) and config.pack_length == 256
    set_folder = build(config, tmp_path / "set", processes=1).folder
    folder = run.execute(make_plan(recipe, set_folder), Heard()).parent
    samples = [line for line in read_log(folder / "log.jsonl") if line.get("event") == "sample"]
    before, after = ({one["prompt"]: one["answer"] for one in part} for part in (samples[:3], samples[3:]))
    who, paris = "Who are you?", "What is the capital of France?"
    assert "Kusi" not in before[who] and "Kusi" in after[who]
    assert before[paris] == after[paris] == "The capital of France is Paris."

    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder / "final")
    tokenizer = AutoTokenizer.from_pretrained(folder / "final")
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": who}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    ids = model.generate(**asked, max_new_tokens=48, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(ids, skip_special_tokens=True) == after[who]
