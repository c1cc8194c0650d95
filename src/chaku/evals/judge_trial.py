"""A judge on trial: every probe is shown to it once, and its answers are read."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chaku.errors import ChakuError, Overloaded
from chaku.evals.caller import ENDING, ModelCaller
from chaku.evals.parse import answer_schema, parsed
from chaku.evals.plan import Judging
from chaku.evals.prices import BudgetReached
from chaku.evals.probes import Probe
from chaku.evals.records import CallUsage, Judgement

MAX_REFUSALS = 30
"""Of one call; then the server is taken for closed."""
_PAUSE_S = 1.0
"""After a 429 that does not say how long to wait."""

AskJudge = Callable[[Probe], Awaitable[str]]
"""A probe to the judge's text."""


@dataclass
class Trial:
    """What the judge said, and how it behaved."""

    judgements: dict[str, Judgement] = field(default_factory=dict)
    """By the probe's key."""
    num_refused: int = 0
    """Calls that were refused with a 429 and made again."""

    @property
    def seconds(self) -> list[float]:
        """How long each judgement took, waiting for the server's limits not counted."""
        return [one.usage.seconds for one in self.judgements.values() if one.usage.seconds is not None]


class HttpJudge:
    """A model behind an API. Usage of its calls is kept by the probe's key."""

    def __init__(self, caller: ModelCaller, judging: Judging) -> None:
        self._caller = caller
        self._judging = judging
        self._extra: dict[str, Any] | None = None
        self._declaring = asyncio.Lock()
        self.usages: dict[str, CallUsage] = {}

    async def __call__(self, probe: Probe) -> str:
        """The judge's text. Raises what `ModelCaller.chat` raises."""
        async with self._declaring:
            if self._extra is None:
                self._extra = await self._schema()
        called = await self._caller.chat(
            self._judging.judge, probe.task.messages, **self._judging.sampling, **self._extra
        )
        self.usages[probe.task.key] = called.usage
        return called.completion.text

    async def _schema(self) -> dict[str, Any]:
        if not await self._caller.declares(self._judging.judge, "response_format"):
            return {}
        schema = {"name": "judgement", "schema": answer_schema(self._judging.mode), "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": schema}}


async def try_judge(
    probes: Sequence[Probe],
    ask: AskJudge,
    judging: Judging,
    *,
    parallel: int,
    known: Mapping[str, Judgement] | None = None,
    watch: Callable[[Judgement], None] = lambda _: None,
    usages: Mapping[str, CallUsage] | None = None,
) -> Trial:
    """Show all probes, `parallel` at once. `known`: judgements of an earlier, broken-off trial, by key.

    A failure of one call is a judgement that failed. Raises what means that no further call would do better.
    """
    trial = Trial({probe.task.key: known[probe.task.key] for probe in probes if probe.task.key in (known or {})})  # type: ignore[index]
    waiting = iter([probe for probe in probes if probe.task.key not in trial.judgements])

    async def worker() -> None:
        for probe in waiting:
            judgement = await _judgement_of(probe, ask, judging, trial)
            if usages and (usage := usages.get(judgement.key)):
                judgement = judgement.model_copy(update={"usage": usage})
            trial.judgements[judgement.key] = judgement
            watch(judgement)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(parallel):
                group.create_task(worker())
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return trial


async def _judgement_of(probe: Probe, ask: AskJudge, judging: Judging, trial: Trial) -> Judgement:
    task = probe.task
    judgement = Judgement(
        key=task.key, question_id=task.question.id, mode=judging.mode, judge=judging.judge, models=task.models,
        turn=task.turn, repeat=task.repeat, prompt=task.prompt,
    )  # fmt: skip
    for attempt in range(MAX_REFUSALS):
        started = time.monotonic()
        try:
            text = await ask(probe)
        except Overloaded as refusal:
            trial.num_refused += 1
            if attempt + 1 == MAX_REFUSALS:
                raise
            await asyncio.sleep(_PAUSE_S if refusal.retry_after_s is None else refusal.retry_after_s)
            continue
        except (*ENDING, BudgetReached):
            raise
        except ChakuError as failure:
            return judgement.model_copy(update={"state": "failed", "error": failure.message})
        seconds = round(time.monotonic() - started, 3)
        told = judgement.model_copy(update={"text": text, "usage": CallUsage(seconds=seconds)})
        return parsed(told, question="\n".join(task.question.turns))
    raise AssertionError("unreachable")
