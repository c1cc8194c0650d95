"""What a conversion or quantisation costs: two models on the same text, token by token.

Both are read by transformers in float32 on the CPU, a GGUF dequantised, one at a time. So what differs is the weights'
numbers alone, not an engine's arithmetic.
"""

from __future__ import annotations

import gc
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaku.errors import ModelError, UsageError
from chaku.models.fetch.folders import is_adapter, model_folder
from chaku.models.tokenizers.tokenizer import load_tokenizer

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

_RESAMPLES = 1000
_LEVEL = 0.95

Step = Callable[[int, int], None]
"""Called with chunks done and chunks in all, over both models."""


@dataclass(frozen=True)
class Interval:
    """A mean over tokens, and where it lies with 95 % by resampling chunks."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


@dataclass(frozen=True)
class Quality:
    """How model B does on a text, against model A."""

    num_tokens: int
    """Tokens that were predicted."""
    num_chunks: int
    perplexity_a: Interval
    perplexity_b: Interval
    perplexity_ratio: Interval
    """B's over A's, paired."""
    kl: Interval
    """Mean Kullback-Leibler divergence of B from A, in nats a token."""
    top_agreement: Interval
    """Share of tokens where both find the same one most likely."""


def compare(
    a: Path,
    b: Path,
    text: str,
    *,
    chunk_tokens: int = 512,
    max_chunks: int | None = None,
    step: Step | None = None,
) -> Quality:
    """Compare the models in `a` and `b` (GGUF files, or folders) on `text`.

    The text is cut into chunks of `chunk_tokens`, each read on its own from its second token on. A's log-probabilities
    wait on disk, in f16, while B is read. Raises ModelError where the tokenizers read the text differently.
    """
    import numpy as np

    ids, other = (load_tokenizer(_tokenizer_of(path)).encode_text(text) for path in (a, b))
    if ids != other:
        raise ModelError(f"{a} and {b} read the text as different tokens", fix="compare models with one tokenizer")
    chunks = [ids[start : start + chunk_tokens] for start in range(0, len(ids), chunk_tokens)]
    chunks = [chunk for chunk in chunks if len(chunk) > 1][:max_chunks]
    if len(chunks) < 2:
        raise UsageError(f"the text has {len(ids):,} tokens, two chunks of {chunk_tokens} are needed", fix="give more")
    total = 2 * len(chunks)
    with tempfile.TemporaryDirectory(prefix="chaku-quality-") as scratch:
        model = _load(a)
        first = []
        for number, chunk in enumerate(chunks):
            logs = _log_probabilities(model, chunk)
            np.save(Path(scratch) / f"{number}.npy", logs.half().numpy())
            first.append(_nll(logs, chunk))
            if step:
                step(number + 1, total)
        del model
        gc.collect()
        model = _load(b)
        rows = []
        for number, chunk in enumerate(chunks):
            file = Path(scratch) / f"{number}.npy"
            rows.append(
                (len(chunk) - 1, first[number], *_against(np.load(file), _log_probabilities(model, chunk), chunk))
            )
            file.unlink()
            if step:
                step(len(chunks) + number + 1, total)
    return _summary(np.array(rows))


def _tokenizer_of(path: Path) -> Path:
    return path if path.is_file() else model_folder(path)


def _load(path: Path) -> Any:
    import torch
    import transformers

    from chaku.weights.dequantise import load_dequantised, quiet

    if path.is_file():
        return load_dequantised(path).eval()
    folder = model_folder(path)
    if is_adapter(folder):
        raise UsageError(f"{folder} is an adapter", fix="merge it first: chaku weights merge BASE ADAPTER -o DIR")
    models: Any = transformers.AutoModelForCausalLM
    with quiet():
        return models.from_pretrained(folder, dtype=torch.float32, local_files_only=True).eval()


def _log_probabilities(model: Any, chunk: Sequence[int]) -> torch.Tensor:
    """Log-probabilities of every token after the first, one row each."""
    import torch

    with torch.inference_mode():
        logits = model(torch.tensor([chunk])).logits[0, :-1]
        return torch.log_softmax(logits.float(), -1)


def _nll(logs: torch.Tensor, chunk: Sequence[int]) -> float:
    import torch

    return -float(logs.gather(1, torch.tensor(chunk[1:])[:, None]).double().sum())


def _against(first: NDArray[np.float16], logs: torch.Tensor, chunk: Sequence[int]) -> tuple[float, float, int]:
    """B's summed negative log-likelihood, KL(A ‖ B), and in how many tokens the most likely one is the same."""
    import torch

    a = torch.log_softmax(torch.from_numpy(first).float(), -1)  # rounded to f16: normalised again
    kl = (a.exp() * (a - logs)).sum(-1).double().sum()
    return _nll(logs, chunk), float(kl), int((a.argmax(-1) == logs.argmax(-1)).sum())


def _summary(rows: NDArray[np.float64]) -> Quality:
    """Means over tokens; intervals by drawing whole chunks anew, since tokens of one text are not independent."""
    import numpy as np

    draws = np.random.default_rng(0).integers(0, len(rows), (_RESAMPLES, len(rows)))
    tokens, nll_a, nll_b, kl, same = rows.sum(0)
    drawn = rows[draws].sum(1).T

    def interval(value: float, resampled: NDArray[np.float64]) -> Interval:
        low, high = np.quantile(resampled, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
        return Interval(float(value), float(low), float(high))

    return Quality(
        num_tokens=int(tokens),
        num_chunks=len(rows),
        perplexity_a=interval(math.exp(nll_a / tokens), np.exp(drawn[1] / drawn[0])),
        perplexity_b=interval(math.exp(nll_b / tokens), np.exp(drawn[2] / drawn[0])),
        perplexity_ratio=interval(math.exp((nll_b - nll_a) / tokens), np.exp((drawn[2] - drawn[1]) / drawn[0])),
        kl=interval(kl / tokens, drawn[3] / drawn[0]),
        top_agreement=interval(same / tokens, drawn[4] / drawn[0]),
    )
