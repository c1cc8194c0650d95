"""How one request's next token is chosen from the logits, and what is kept of its log probabilities.

One rule for both paths, continuous batching and `generate`, so that no parameter depends on who else is served.
Axes: V vocabulary, B requests in a step.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessor
from transformers.generation.logits_process import LogitsProcessor

_CHOSEN = float("inf")


@dataclass(frozen=True)
class ScoredToken:
    """A token with its log probability, and its likeliest rivals, the likeliest first."""

    token_id: int
    logprob: float | None
    """Natural logarithm, before temperature and penalties. None: the first token of a text has no probability."""
    top: tuple[tuple[int, float], ...] = ()


class Vocabulary:
    """The bytes of every token that is text, to find those that can begin a text."""

    def __init__(self, bytes_of: Sequence[bytes | None]) -> None:
        """Bytes by token id; None for special tokens and ids without a token."""
        self.bytes_of = bytes_of
        self._sorted = sorted((data, token_id) for token_id, data in enumerate(bytes_of) if data)
        self._ids: dict[bytes, list[int]] = {}
        for data, token_id in self._sorted:
            self._ids.setdefault(data, []).append(token_id)

    def beginnings_of(self, text: bytes) -> list[int]:
        """Tokens that `text` begins with, and tokens that begin with `text`."""
        shorter = [token_id for end in range(1, len(text)) for token_id in self._ids.get(text[:end], ())]
        at = bisect.bisect_left(self._sorted, (text, -1))
        while at < len(self._sorted) and self._sorted[at][0].startswith(text):
            shorter.append(self._sorted[at][1])
            at += 1
        return shorter


@dataclass
class Sampling:
    """The parameters of one request, and the state that its choice of tokens needs."""

    temperature: float = 1.0
    """0: the likeliest token."""
    top_k: int = 0
    """0: off."""
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    """Over prompt and answer, as transformers defines it."""
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    """Both over the answer, as OpenAI defines them."""
    logit_bias: dict[int, float] = field(default_factory=dict)
    seed: int | None = None
    num_top: int | None = None
    """Rivals to keep per token. None: no log probabilities."""
    num_prompt: int = 0
    """Tokens of the prompt."""
    begins_with: bytes = b""
    """Bytes that the answer must begin with: the end of a text that is continued, whose last tokens are chosen anew."""
    vocabulary: Vocabulary | None = None
    scored: list[ScoredToken] = field(default_factory=list)
    """The tokens chosen so far, where log probabilities are kept."""
    _generator: torch.Generator | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Sampling:
        """Itself: transformers copies the arguments of a request that it preempts, and would fork its random state."""
        return self

    def choose(self, logits_V: torch.Tensor, tokens: Sequence[int]) -> int:
        """The next token after `tokens` (prompt and answer). Keeps its log probability where that is wanted."""
        scores_V = self._adjusted(logits_V, tokens)
        token_id = int(scores_V.argmax()) if self.temperature == 0 else self._drawn(scores_V)
        if self.begins_with:
            assert self.vocabulary is not None, "a text that is continued comes with the vocabulary"
            self.begins_with = self.begins_with[len(self.vocabulary.bytes_of[token_id] or b"") :]
        if self.num_top is not None:
            self.scored.append(score(logits_V, token_id, self.num_top))
        return token_id

    @property
    def is_plain(self) -> bool:
        """Whether the likeliest token is right as it is."""
        return (
            self.temperature == 0
            and self.num_top is None
            and not (self.begins_with or self.logit_bias)
            and (self.repetition_penalty, self.presence_penalty, self.frequency_penalty) == (1.0, 0.0, 0.0)
        )

    def _adjusted(self, logits_V: torch.Tensor, tokens: Sequence[int]) -> torch.Tensor:
        scores_V = logits_V.clone()
        if self.repetition_penalty != 1.0:
            seen = torch.tensor(sorted(set(tokens)), device=scores_V.device)
            values = scores_V[seen]
            penalty = self.repetition_penalty
            scores_V[seen] = torch.where(values < 0, values * penalty, values / penalty)
        if self.presence_penalty or self.frequency_penalty:
            for token_id, count in Counter(tokens[self.num_prompt :]).items():
                scores_V[token_id] -= self.presence_penalty + self.frequency_penalty * count
        for token_id, bias in self.logit_bias.items():
            scores_V[token_id] += bias
        if self.begins_with and self.vocabulary is not None:
            allowed = torch.tensor(self.vocabulary.beginnings_of(self.begins_with), device=scores_V.device)
            kept_V = torch.full_like(scores_V, -float("inf"))
            kept_V[allowed] = scores_V[allowed]
            return kept_V
        return scores_V

    def _drawn(self, scores_V: torch.Tensor) -> int:
        scores_V = scores_V / self.temperature
        if 0 < self.top_k < scores_V.numel():
            smallest = scores_V.topk(self.top_k).values[-1]
            scores_V = scores_V.masked_fill(scores_V < smallest, -float("inf"))
        probabilities_V = scores_V.softmax(-1)
        if self.min_p > 0:
            probabilities_V[probabilities_V < self.min_p * probabilities_V.max()] = 0
        if self.top_p < 1:
            ordered_V, order_V = probabilities_V.sort(descending=True)
            before_V = ordered_V.cumsum(-1) - ordered_V
            probabilities_V[order_V[before_V >= self.top_p * ordered_V.sum()]] = 0
        if self._generator is None:
            self._generator = torch.Generator(scores_V.device)
            self._generator.seed() if self.seed is None else self._generator.manual_seed(self.seed % 2**63)
        return int(torch.multinomial(probabilities_V, 1, generator=self._generator))


def score(logits_V: torch.Tensor, token_id: int, num_top: int) -> ScoredToken:
    """The log probability of a token under these logits, and the `num_top` likeliest tokens."""
    logprobs_V = logits_V.float().log_softmax(-1)
    values, ids = logprobs_V.topk(num_top)
    return ScoredToken(token_id, float(logprobs_V[token_id]), tuple(zip(ids.tolist(), values.tolist(), strict=True)))


class RequestSampler(ContinuousBatchingLogitsProcessor):
    """The only processor of the batching manager: every request is sampled by its own `Sampling`.

    The manager asks for the arguments of a step and then hands over its scores, on one thread and in one order. The
    chosen token gets an infinite score, and the manager, which does not sample, takes it.
    """

    supported_kwargs = {"sampling": Sampling}  # noqa: RUF012 - the base class has it so
    ignored_kwargs = ()

    def __init__(self) -> None:
        self._rows: list[Any] = []

    def fill_defaults(self, int32_tensor: torch.Tensor) -> None:
        """Nothing is passed in tensors."""
        int32_tensor.zero_()

    def prepare_tensor_args(self, requests_with_new_token: list[Any]) -> torch.Tensor:
        """Remember whose scores come next."""
        self._rows = [request.state for request in requests_with_new_token]
        return torch.zeros(len(self._rows), dtype=torch.int32)

    def __call__(self, scores_BV: torch.Tensor, tensor_arg: torch.Tensor) -> torch.Tensor:
        """Choose a token for every row that needs more than the likeliest one."""
        for row, state in enumerate(self._rows):
            sampling: Sampling = state.logit_processor_kwargs["sampling"]
            if not sampling.is_plain:
                # after a preemption the manager counts the tokens so far as prompt
                tokens = [*state.initial_tokens, *state.generated_tokens]
                scores_BV[row, sampling.choose(scores_BV[row], tokens)] = _CHOSEN
        return scores_BV


class OneRequestSampler(LogitsProcessor):
    """The same for `generate`, with one request."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling

    def __call__(self, input_ids: torch.Tensor, scores_BV: torch.Tensor) -> torch.Tensor:
        """Choose a token where that needs more than the likeliest one."""
        if self._sampling.is_plain:
            return scores_BV
        scores_BV = scores_BV.float().clone()
        scores_BV[0, self._sampling.choose(scores_BV[0], input_ids[0].tolist())] = _CHOSEN
        return scores_BV
