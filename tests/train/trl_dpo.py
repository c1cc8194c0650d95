"""Run by test_dpo_proofs.py in an environment with TRL: its DPO loss and gradients for pairs of token ids.

python trl_dpo.py POLICY REFERENCE PAIRS.json OUT.pt. PAIRS holds beta, loss_type, label_smoothing and, for every pair,
two lists of ids with their masks. OUT gets the mean loss and the gradients by name.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer


def padded(rows: list[list[int]]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


def loss_of(trainer: DPOTrainer, documents: list[tuple[list[int], list[int]]]) -> torch.Tensor:
    inputs = {
        "input_ids": padded([ids for ids, _ in documents]),
        "attention_mask": padded([[1] * len(ids) for ids, _ in documents]),
        "completion_mask": padded([mask for _, mask in documents]),
    }
    return trainer._compute_loss(trainer.model, inputs, return_outputs=False)


def main(policy: str, reference: str, pairs: str, out: str) -> None:
    given = json.loads(Path(pairs).read_text())
    documents = [side for which in (0, 1) for side in (pair[which] for pair in given["pairs"])]  # chosen, then rejected
    settings = DPOConfig(
        output_dir=f"{out}-trl", beta=given["beta"], loss_type=[given["loss_type"]], report_to=[], use_cpu=True,
        bf16=False, gradient_checkpointing=False,
    )  # fmt: skip
    one = [{"prompt": "a", "chosen": "b", "rejected": "c"}]
    models = [AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32) for path in (policy, reference)]
    tokenizer = AutoTokenizer.from_pretrained(reference)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    trainer = DPOTrainer(
        models[0], models[1], settings, train_dataset=Dataset.from_list(one), processing_class=tokenizer
    )
    trainer.model.train()
    smoothing, half = given["label_smoothing"], len(documents) // 2
    swapped = documents[half:] + documents[:half]  # a smoothed label is wrong so often: TRL's sigmoid loss has none
    loss = (1 - smoothing) * loss_of(trainer, documents) + smoothing * loss_of(trainer, swapped)
    loss.backward()
    gradients = {name: each.grad for name, each in trainer.model.named_parameters() if each.grad is not None}
    torch.save({"loss": loss.detach(), "gradients": gradients}, out)


if __name__ == "__main__":
    main(*sys.argv[1:])
