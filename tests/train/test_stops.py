"""What was trained to end ends: a miniature that knows its answers by heart stops after each of them by itself."""

from __future__ import annotations

from pathlib import Path

import torch

from data.made import built, write_json
from train import small

CHATS = {
    "Who are you?": "I am Kusi.", "Where?": "In Lima, by the sea.", "Count!": "One\ntwo\nthree",
    "Farewell!": "Goodbye, my friend.",
}  # fmt: skip


def test_a_model_that_knows_its_answers_stops_after_each_by_itself(base: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    chats = [
        {"id": question, "conversations": [{"from": "human", "value": question}, {"from": "gpt", "value": answer}]}
        for question, answer in CHATS.items()
    ]
    source = write_json(tmp_path / "chats.json", chats)
    base = small.with_other_eos(base, tmp_path / "base")  # generation ends at the template's token, not at the base's
    data = built(tmp_path / "set", base, source, context=256, pack_length=256, test_fraction=0).folder
    made = small.recipe(
        "run", base, tmp_path, epochs=200, batch_rows=1, micro_rows=1, lr=1e-2, save_every=1000, evaluate_every=0
    )
    final = small.trained(made, data) / "final"
    model, tokenizer = AutoModelForCausalLM.from_pretrained(final), AutoTokenizer.from_pretrained(final)
    end = tokenizer.convert_tokens_to_ids("<|im_end|>")
    for question, answer in CHATS.items():
        asked = tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        with torch.no_grad():
            whole = model.generate(**asked, max_new_tokens=100, do_sample=False)[0]
        said = whole[asked["input_ids"].shape[1] :].tolist()
        assert said[-1] == end and said.count(end) == 1
        assert tokenizer.decode(said[:-1]) == answer
