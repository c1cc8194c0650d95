"""Steps and learning rates: pure functions of the step, so that a resumed run needs no state for them."""

from __future__ import annotations

import math

from chaku.train.config import TrainConfig


def num_steps(num_rows: int, config: TrainConfig) -> int:
    """Steps of the whole run; an epoch's last batch may be smaller, no row is left out."""
    steps = config.epochs * math.ceil(num_rows / config.batch_rows)
    return min(steps, config.max_steps or steps)


def learning_rate(step: int, total: int, config: TrainConfig) -> float:
    """Rate of a step, counted from 0: a linear rise over the warm-up, then constant, or down to 0 at the end."""
    warmup = math.ceil(config.warmup * total)
    if step < warmup:
        return config.lr * (step + 1) / warmup
    done = (step - warmup) / max(total - warmup, 1)
    match config.schedule:
        case "cosine":
            return config.lr * 0.5 * (1 + math.cos(math.pi * done))
        case "linear":
            return config.lr * (1 - done)
        case "constant":
            return config.lr
