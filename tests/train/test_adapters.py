"""LoRA and QLoRA: peft's own layout comes out, and a killed run goes on in the same bits."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from train import small

LORA: dict[str, Any] = {"rank": 4, "alpha": 8, "dropout": 0.1}


def adapter(folder: Path) -> dict[str, bytes]:
    from safetensors.torch import load_file

    loaded = load_file(folder / "final" / "adapter_model.safetensors")
    return {name: value.numpy().tobytes() for name, value in loaded.items()}


# peft asks under a name that transformers 5.24 has retired
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_an_adapter_opens_in_peft_and_answers_as_the_run_left_it(base: Path, small_set: Path, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from chaku.train.batches import micro_batch
    from chaku.train.loss import token_log_probs
    from chaku.train.rows import Rows

    made = small.recipe("run", base, tmp_path, method="lora", lora=LORA, lr=1e-2)
    folder = small.trained(made, small_set)
    records = small.numbers(folder)
    assert records[-1][2] < records[0][2]
    assert not (folder / "final" / "model.safetensors").exists()
    opened = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder / "final").eval()
    model = opened.get_base_model()
    heldout = Rows(small_set, "test")
    total = number = 0.0
    with torch.no_grad():
        for at in range(len(heldout)):
            for ids, mask in heldout[at].documents():
                row = type(heldout[at])("", 0, ids, mask, torch.zeros(len(ids)).numpy().astype("uint16"))
                batch = micro_batch([row])
                hidden = model.model(input_ids=batch.ids).last_hidden_state
                total += -float(token_log_probs(hidden, model.lm_head, batch.targets).sum())
                number += int(mask.sum())
    assert total / number == pytest.approx(records[-1][-1], rel=1e-4)


@pytest.mark.parametrize("method", ["lora", "qlora"])
def test_killed_and_resumed_an_adapter_ends_in_the_same_bits(
    base: Path, small_set: Path, tmp_path: Path, method: str
) -> None:
    changes: dict[str, Any] = {"method": method, "lora": LORA, "lr": 1e-2, "max_steps": 4}
    calm = small.trained(small.recipe("calm", base, tmp_path, **changes), small_set)
    made = small.recipe("run", base, tmp_path, **changes)
    heard = small.Heard(lambda record: small.kill_self() if record.step == 3 else None)
    assert small.in_fork(lambda: small.trained(made, small_set, heard=heard)) == -signal.SIGKILL
    assert small.in_fork(lambda: small.trained(made, small_set, resume=True)) == 0
    assert small.numbers(tmp_path / "run") == small.numbers(calm)
    assert adapter(tmp_path / "run") == adapter(calm)


def test_qlora_holds_the_base_in_four_bits(base: Path) -> None:
    from chaku.train.base import find_base
    from chaku.train.config import TrainConfig
    from chaku.train.parallel import World
    from chaku.train.parallelize import open_trainee

    config = TrainConfig(**{**small.SETTINGS, "method": "qlora"})
    model = open_trainee(find_base(str(base)), config, 256, World.alone(torch.device("cpu")))
    kinds = {type(each).__name__ for each in model.modules()}
    assert "Linear4bit" in kinds
    assert {each.dtype for each in model.parameters() if each.requires_grad} == {torch.float32}
