"""The whole training in one file without chaku's abstractions: a built set and a base model in, losses and weights out.

    python examples/train_flat.py BASE SET OUT [--epochs 3 --batch-rows 8 --lr 1e-4 ...]

For reading, and as a yardstick: the losses are the library's to the last digit (fp32, one process, one batch at a time;
tests/train/test_flat.py). What the library adds is checkpoints, several processes, adapters, bf16 and GPUs.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM

IGNORED = -100
Row = tuple[Any, Any, Any]


def read_rows(folder: Path, part: str = "train") -> list[Row]:
    """All rows of a built set: ids, loss mask (1 where a token is trained, not shifted), document of each token."""
    rows: list[Row] = []
    for path in sorted((folder / "rows").glob(f"{part}-*.arrow")):
        for row in pa.ipc.open_file(str(path)).read_all().to_pylist():
            ids, mask, documents = (np.array(row[name]) for name in ("input_ids", "loss_mask", "doc_ids"))
            rows.append((ids, mask, documents))
    return rows


def order_of_rows(num_rows: int, seed: int, epoch: int) -> np.ndarray:
    """The order is a function of (seed, epoch), so a run can be taken up anywhere."""
    random = np.random.Philox(key=np.array([seed, epoch], np.uint64)).random_raw(num_rows)
    return np.argsort(random, kind="stable")


def batches(rows: list[Row], args: argparse.Namespace) -> Iterator[list[Row]]:
    """Every row once an epoch; the last batch of an epoch may be smaller."""
    for epoch in range(args.epochs):
        order = order_of_rows(len(rows), args.seed, epoch)
        for start in range(0, len(rows), args.batch_rows):
            yield [rows[number] for number in order[start : start + args.batch_rows]]


def tensors(rows: list[Row]) -> tuple[torch.Tensor, ...]:
    """Ids, positions, documents and targets, [rows, length]; padding is document -1 and has no targets."""
    length = max(len(ids) for ids, _, _ in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    positions = torch.zeros_like(ids)
    documents = torch.full_like(ids, -1)
    targets = torch.full_like(ids, IGNORED)
    for index, (row_ids, mask, row_documents) in enumerate(rows):
        size = len(row_ids)
        ids[index, :size] = torch.from_numpy(row_ids)
        documents[index, :size] = torch.from_numpy(row_documents)
        position = 0
        for at in range(size):
            begins = at > 0 and row_documents[at] != row_documents[at - 1]
            position = 0 if begins else position
            positions[index, at] = position
            position += 1
            if at > 0 and mask[at] and not begins:  # the token is predicted one to the left
                targets[index, at - 1] = int(row_ids[at])
    return ids, positions, documents, targets


def block_mask(documents: torch.Tensor) -> torch.Tensor:
    """[rows, 1, n, n]: a token sees its own document up to itself."""
    same = documents[:, None, :, None] == documents[:, None, None, :]
    return same & torch.ones(documents.shape[1], documents.shape[1], dtype=torch.bool).tril()


def learning_rate(step: int, total: int, args: argparse.Namespace) -> float:
    """A linear rise, then half a cosine down to 0."""
    peak, warmup = float(args.lr), math.ceil(float(args.warmup) * total)
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))


def train(args: argparse.Namespace) -> list[float]:
    """Train and return the loss of every step: summed over a batch's trained tokens, divided by their number."""
    model = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32, attn_implementation="sdpa").train()
    parameters = list(model.parameters())
    groups = [
        {"params": [each for each in parameters if each.ndim >= 2], "weight_decay": args.weight_decay},
        {"params": [each for each in parameters if each.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, 0.999), eps=1e-8, fused=True)
    rows = read_rows(args.set)
    total = args.epochs * math.ceil(len(rows) / args.batch_rows)
    losses: list[float] = []
    for step, batch in enumerate(batches(rows, args)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, total, args)
        micro_batches = [tensors(batch[at : at + args.micro_rows]) for at in range(0, len(batch), args.micro_rows)]
        num_targets = sum(int((targets != IGNORED).sum()) for *_, targets in micro_batches)
        loss = 0.0
        for ids, positions, documents, targets in micro_batches:
            seen = model.model(
                input_ids=ids, position_ids=positions, attention_mask=block_mask(documents), use_cache=False
            ).last_hidden_state
            is_target = targets != IGNORED
            logits = F.linear(seen[is_target], model.lm_head.weight)
            part = F.cross_entropy(logits.float(), targets[is_target], reduction="none").sum() / num_targets
            torch.autograd.backward(part)
            loss += float(part.detach())
        torch.nn.utils.clip_grad_norm_(parameters, args.max_grad_norm)
        optimiser.step()
        optimiser.zero_grad()
        losses.append(loss)
        print(json.dumps({"step": step + 1, "of": total, "loss": loss}))
    model.save_pretrained(args.out)
    return losses


def parse(words: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="folder of a Hugging Face model")
    parser.add_argument("set", type=Path, help="folder that `chaku data build` wrote")
    parser.add_argument("out", type=Path, help="folder for the weights")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch-rows", type=int, default=8)
    parser.add_argument("--micro-rows", type=int, default=4)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--warmup", type=float, default=0.03)
    parser.add_argument("--weight-decay", type=float, default=0.0)
    parser.add_argument("--max-grad-norm", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(words)


if __name__ == "__main__":
    train(parse())
