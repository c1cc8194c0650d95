"""Token ids of one model as they are generated: in continuous batches, or one request after the other.

transformers' batching manager is wrapped here and nowhere else. What is worked around, as of 5.24: sampling parameters
for all requests alike (`RequestSampler` is its only processor), a cache of 60 % of the memory (`num_blocks` is always
given), results that reach other callers (`register_result_handler` only), handlers of cancelled requests that stay, a
queue that blocks (it is unbounded: the gateway admits), a loop that dies alone (`failure`), and other threads' passes
through the model, which its own would spoil (`exclusive`).
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import logging
import threading
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import AbstractContextManager, aclosing, nullcontext
from typing import Any, Protocol

import torch
from transformers import GenerationConfig
from transformers.generation.configuration_utils import ContinuousBatchingConfig
from transformers.generation.continuous_batching import ContinuousBatchingManager
from transformers.generation.continuous_batching.cb_logits_processors import ContinuousBatchingLogitsProcessorList
from transformers.generation.logits_process import LogitsProcessorList
from transformers.generation.stopping_criteria import StoppingCriteria, StoppingCriteriaList
from transformers.generation.streamers import BaseStreamer

from chaku.engines.transformers.sampling import OneRequestSampler, RequestSampler, Sampling, ScoredToken, score
from chaku.errors import EngineError, EngineUnavailable

_log = logging.getLogger(__name__)

PAGE_TOKENS = 256
_REFUSALS = (EngineError, ValueError, RuntimeError, TypeError, AttributeError, LookupError)
"""The ways in which continuous batching refuses a model, or breaks at its first token."""
_SCORED_TOKENS = 256
"""Prompt tokens scored at once: their logits over the vocabulary are held in memory."""


class Generator(Protocol):
    """Generates for one model."""

    @property
    def slots(self) -> int | None:
        """Requests decoded at once. None: as many as the gateway admits."""

    def ids(
        self, prompt: Sequence[int], sampling: Sampling, max_tokens: int, ends: Collection[int]
    ) -> AsyncGenerator[int]:
        """Ids after the prompt, at most `max_tokens`, the last one of `ends` included. Closing it ends the work."""

    def exclusive(self) -> AbstractContextManager[None]:
        """Keep the generator from using the model while another thread does. Blocks until that is so."""

    def failure(self) -> BaseException | None:
        """Why nothing will be generated any more; None while it works."""

    def stop(self) -> None:
        """End its thread."""


def _greedy(**options: Any) -> Any:
    return GenerationConfig(do_sample=False, **options)  # type: ignore[no-untyped-call]  # not typed there


class Batched:
    """transformers' continuous batching."""

    slots = None

    def __init__(self, model: Any, *, num_blocks: int, batch_tokens: int, slots: int) -> None:
        """`num_blocks` pages of PAGE_TOKENS hold the key-value cache of all requests. Raises ValueError if refused."""
        config = ContinuousBatchingConfig(
            page_size=PAGE_TOKENS,
            num_blocks=num_blocks,
            max_batch_tokens=batch_tokens,
            max_requests_per_batch=slots,
            use_async_batching=False,  # RequestSampler needs the tokens of the step before
            use_cuda_graph=False,
            drop_unsupported_processors=False,
        )
        self._manager = ContinuousBatchingManager(model, _greedy(eos_token_id=-1), config)
        processors = ContinuousBatchingLogitsProcessorList(
            LogitsProcessorList([RequestSampler()]), drop_unsupported_processors=False
        )
        processors.tensors_required = 1
        self._manager.logit_processor = processors
        self._numbers = itertools.count()
        self._manager.start()

    async def ids(
        self, prompt: Sequence[int], sampling: Sampling, max_tokens: int, ends: Collection[int]
    ) -> AsyncGenerator[int]:
        """See `Generator.ids`. Raises EngineError where the manager fails the request."""
        name = f"r{next(self._numbers)}"
        outputs: asyncio.Queue[Any] = asyncio.Queue()
        self._manager.register_result_handler(name, outputs.put_nowait)
        num_given, finished = 0, False
        try:
            accepted = self._manager.add_request(
                list(prompt), name, max_tokens, streaming=True, eos_token_id=list(ends) or -1, sampling=sampling
            )
            if accepted is None:
                raise EngineUnavailable("the batching manager takes no more requests", retry_after_s=1)
            while not finished:
                output = await outputs.get()
                finished = output.is_finished()
                if output.error is not None:
                    raise EngineError(f"continuous batching failed: {output.error}")
                for token_id in output.generated_tokens[num_given:]:
                    num_given += 1
                    yield token_id
        finally:
            if not finished:
                self._manager.cancel_request(name)
            with self._manager.output_router._lock:
                self._manager.output_router.result_handlers.pop(name, None)

    def exclusive(self) -> AbstractContextManager[None]:
        """Pause the loop between two steps: a forward pass of another thread beside its own gives wrong logits."""
        pause: AbstractContextManager[None] = self._manager.pause()
        return pause

    def failure(self) -> BaseException | None:
        """The error that ended the manager's loop."""
        error: BaseException | None = self._manager.background_thread_status.fatal_error
        return error or (None if self._manager.is_running() else EngineError("the batching loop has ended"))

    def stop(self) -> None:
        """End the loop at once."""
        self._manager.stop(hard_stop=True, timeout=10)


class OneByOne:
    """`generate`, one request after the other, for models that continuous batching refuses."""

    slots = 1

    def __init__(self, model: Any) -> None:
        """The model's own defaults for `generate` (sampling, ends) are taken away: they are not the API's."""
        model.generation_config = _greedy()
        self._model = model
        self._turn = asyncio.Lock()

    async def ids(
        self, prompt: Sequence[int], sampling: Sampling, max_tokens: int, ends: Collection[int]
    ) -> AsyncGenerator[int]:
        """See `Generator.ids`. Raises what `generate` raises."""
        loop = asyncio.get_running_loop()
        outputs: asyncio.Queue[int | None] = asyncio.Queue()
        left = threading.Event()

        def generate() -> None:
            input_ids = torch.tensor([list(prompt)], device=self._model.device)
            config = _greedy(max_new_tokens=max_tokens, eos_token_id=list(ends) or None, pad_token_id=0)
            try:
                with torch.inference_mode():
                    self._model.generate(
                        input_ids,
                        attention_mask=torch.ones_like(input_ids),
                        generation_config=config,
                        logits_processor=LogitsProcessorList([OneRequestSampler(sampling)]),
                        stopping_criteria=StoppingCriteriaList([_Left(left)]),
                        streamer=_ToLoop(loop, outputs),
                    )
            finally:
                loop.call_soon_threadsafe(outputs.put_nowait, None)

        async with self._turn:
            work = asyncio.ensure_future(asyncio.to_thread(generate))
            try:
                while (token_id := await outputs.get()) is not None:
                    yield token_id
            finally:
                left.set()
                await work  # it ends with the token it is at

    def exclusive(self) -> AbstractContextManager[None]:
        """Plain forward passes may run side by side."""
        return nullcontext()

    def failure(self) -> None:
        """A call that fails fails alone."""

    def stop(self) -> None:
        """There is no thread of its own."""


class _Left(StoppingCriteria):
    def __init__(self, left: threading.Event) -> None:
        self._left = left

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        return torch.full((input_ids.shape[0],), self._left.is_set(), device=input_ids.device, dtype=torch.bool)


class _ToLoop(BaseStreamer):
    """Puts the generated ids into a queue of the event loop; the first call is the prompt."""

    def __init__(self, loop: asyncio.AbstractEventLoop, outputs: asyncio.Queue[int | None]) -> None:
        self._loop, self._outputs, self._has_prompt = loop, outputs, False

    def put(self, value: torch.Tensor) -> None:
        if not self._has_prompt:
            self._has_prompt = True
            return
        for token_id in value.flatten().tolist():
            self._loop.call_soon_threadsafe(self._outputs.put_nowait, token_id)

    def end(self) -> None:
        pass


async def start_generator(model: Any, *, batching: bool, num_blocks: int, batch_tokens: int, slots: int) -> Generator:
    """Continuous batching where it can do this model, proven by a token; else one by one, with the reason logged."""
    if batching:
        batched: Batched | None = None
        try:
            batched = Batched(model, num_blocks=num_blocks, batch_tokens=batch_tokens, slots=slots)
            await first_token(batched)
        except (
            EngineError,
            ValueError,
            RuntimeError,
            TypeError,
            AttributeError,
            NotImplementedError,
            KeyError,
        ) as error:
            _log.warning("requests are served one by one: continuous batching can't serve this model: %s", error)
            if batched is not None:
                await asyncio.to_thread(batched.stop)
        else:
            return batched
    generator = OneByOne(model)
    await first_token(generator)
    return generator


async def first_token(generator: Generator) -> None:
    """Generate a token. Raises EngineError where none comes."""
    async with aclosing(generator.ids([0], Sampling(temperature=0, num_prompt=1), 1, ())) as ids:
        async for _ in ids:
            return
    raise EngineError("the model generated nothing")


@torch.inference_mode()
def score_prompt(model: Any, generator: Generator, prompt: Sequence[int], num_top: int) -> list[ScoredToken]:
    """The log probability of each token of a prompt after those before it; the first has none.

    The generator of this model waits meanwhile. The logits of 256 tokens at a time are held, against the cache of those
    before; a model whose cache is of another
    kind reads the prompt in one piece.
    """
    scored = [ScoredToken(prompt[0], None)]
    has_cache = "cache" in inspect.signature(model.forward).parameters
    num_at_once = _SCORED_TOKENS if has_cache else len(prompt)
    cache = None
    for start in range(0, len(prompt) - 1, num_at_once):
        piece = list(prompt[start : min(start + num_at_once, len(prompt) - 1)])
        options = {"cache": cache, "use_cache": True} if has_cache else {}
        with generator.exclusive():
            answer = model(torch.tensor([piece], device=model.device), **options)
        cache = answer.cache if has_cache else None
        following = prompt[start + 1 : start + 1 + len(piece)]
        scored += [score(logits_V, after, num_top) for logits_V, after in zip(answer.logits[0], following, strict=True)]
    return scored
