"""The loop. A step's batch, rate and random numbers follow from its number, so a run can stop and go on anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import torch

from chaku.errors import RunInterrupted, TrainingError
from chaku.train.batches import Batches, Step
from chaku.train.checkpoint import Checkpoints
from chaku.train.config import TrainConfig
from chaku.train.flops import ModelCost, train_flops, useful_mfu
from chaku.train.log import Log, StepRecord, memory_bytes
from chaku.train.model import Trainee
from chaku.train.parallel import World, clip_gradients
from chaku.train.schedule import learning_rate


class Listener(Protocol):
    """Is told how a run proceeds."""

    def note(self, line: str) -> None:
        """Something that happened, as a line."""

    def step_done(self, record: StepRecord, total: int) -> None:
        """A step is done and logged."""


@dataclass
class Run:
    """What a run is made of once everything is open."""

    trainee: Trainee
    optimiser: torch.optim.Optimizer
    batches: Batches
    heldout: Batches | None
    log: Log
    checkpoints: Checkpoints
    world: World
    config: TrainConfig
    total: int
    cost: ModelCost
    peak_flops_per_s: float | None
    """Of all processes together."""
    listener: Listener
    should_stop: Callable[[], bool] = field(default=lambda: False)
    answers: Callable[[], Iterable[tuple[str, str]]] = field(default=tuple)
    """Sample prompts with what the model says to them now."""
    check: Callable[[], None] = field(default=lambda: None)
    """Raises TrainingError where another process was lost: what a collective gave then is not a number."""

    def stops_at_once(self) -> bool:
        """Whether to stop before the next micro-batch. Several processes ask together and stop together."""
        return self.world.any_process(self.should_stop())


class Sums:
    """Loss and metrics of this process, added up on its device in fp64."""

    def __init__(self, device: torch.device) -> None:
        self.loss = torch.zeros((), dtype=torch.float64, device=device)
        self.metrics: dict[str, torch.Tensor] = {}

    def add(self, loss: torch.Tensor, metrics: dict[str, torch.Tensor]) -> None:
        """Add what one micro-batch gave."""
        self.loss += loss.detach()
        for name, value in metrics.items():
            self.metrics[name] = self.metrics.get(name, torch.zeros_like(self.loss)) + value.detach()


def train(run: Run, first: int) -> StepRecord | None:
    """Train from step `first` (steps done so far) to the end; the last step's record, None where none was left.

    Raises RunInterrupted once the state is saved, TrainingError with the last checkpoint intact.
    """
    record = None
    if first == 0:
        show_answers(run, 0)
    started = time.perf_counter()
    for step in run.batches.steps(first, run.total, run.config.prefetch_steps):
        lr = learning_rate(step.index, run.total, run.config)
        for group in run.optimiser.param_groups:
            group["lr"] = lr
        torch.manual_seed((run.config.seed << 32) + step.index * run.world.size + run.world.rank)  # dropout

        sums = Sums(run.world.device)
        for batch in step.micro_batches:
            if run.stops_at_once():
                _stop_within(run, step.index, record)
            loss, metrics = run.trainee.summed_loss(batch.to(run.world.device))
            loss = loss / step.weight
            torch.autograd.backward(loss)
            sums.add(loss, metrics)
        norm = clip_gradients(run.trainee, run.config.max_grad_norm)
        mean_loss, num_asked, *metric_sums, grad_norm = run.world.all_reduce_sum(
            sums.loss, float(run.should_stop()), *sums.metrics.values(), replicated=(norm,)
        )
        run.check()
        means = {name: value / step.weight for name, value in zip(sums.metrics, metric_sums, strict=True)}
        is_measured = _is_due(step.index + 1, run.config.evaluate_every) or step.index + 1 == run.total
        if not (math.isfinite(mean_loss) and math.isfinite(grad_norm)):
            raise TrainingError(
                f"step {step.index + 1} gave loss {mean_loss} and gradient norm {grad_norm} on rows {step.rows}",
                fix="look at these rows, lower train.lr; --resume auto resumes from the last good checkpoint",
            )
        run.optimiser.step()
        run.optimiser.zero_grad()

        done = step.index + 1
        is_last = done == run.total or num_asked > 0
        seconds = time.perf_counter() - started
        started = time.perf_counter()
        measured, measured_means = heldout_loss(run) if is_measured else (None, {})
        means |= {f"heldout_{name}": value for name, value in measured_means.items()}
        record = StepRecord(
            done, step.epoch, mean_loss, lr, grad_norm, step.num_tokens, step.num_trained, round(seconds, 4),
            round(step.num_tokens / seconds, 1), memory_bytes(run.world.device.type),
            measured, _dollars(run, seconds), _mfu(run, step, seconds), means or None,
        )  # fmt: skip
        run.log.step(record)
        run.listener.step_done(record, run.total)
        if _is_due(done, run.config.sample_every) or done == run.total:
            show_answers(run, done)
        run.checkpoints.finish(wait=False)
        if is_last or _is_due(done, run.config.save_every):
            run.log.sync()
            run.checkpoints.save(done, run.trainee, run.optimiser, record.heldout_loss)
        if num_asked and done < run.total:
            run.checkpoints.finish()
            raise RunInterrupted(
                f"asked to stop: saved after step {done:,} of {run.total:,}", fix="--resume auto resumes from there"
            )
    run.checkpoints.finish()
    return record


def _stop_within(run: Run, done: int, record: StepRecord | None) -> NoReturn:
    """Leave the step that runs, whose gradients are dropped, and save the state after step `done`.

    `record` is that step's, None where it was not done here: then its checkpoint is there already.
    """
    run.optimiser.zero_grad()
    run.checkpoints.finish()
    if record is not None and not _is_due(done, run.config.save_every):
        run.log.sync()
        run.checkpoints.save(done, run.trainee, run.optimiser, record.heldout_loss)
        run.checkpoints.finish()
    saved = f"saved after step {done:,} of {run.total:,}" if done else "no step was done"
    raise RunInterrupted(f"asked to stop: {saved}", fix="--resume auto resumes from there")


def _is_due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def _dollars(run: Run, seconds: float) -> float | None:
    if run.config.dollars_per_hour is None:
        return None
    run.log.dollars += run.config.dollars_per_hour * seconds / 3600
    return round(run.log.dollars, 6)


def _mfu(run: Run, step: Step, seconds: float) -> float | None:
    if run.peak_flops_per_s is None:
        return None
    flops = train_flops(run.cost, step.num_tokens, step.num_trained, step.num_pairs)
    return round(useful_mfu(flops, seconds, run.peak_flops_per_s), 4)


def show_answers(run: Run, steps_done: int) -> None:
    """Log and show the answers to the sample prompts."""
    for prompt, answer in run.answers():
        if run.stops_at_once():
            return
        run.log.event("sample", steps_done, prompt=prompt, answer=answer)
        run.listener.note(f"after step {steps_done:,}: {prompt!r} -> {answer!r}")


@torch.no_grad()
def heldout_loss(run: Run) -> tuple[float | None, dict[str, float]]:
    """Mean loss of held-out rows, and the objective's further numbers; the number of processes has no say."""
    if run.heldout is None:
        return None, {}
    run.trainee.eval()
    step = run.heldout.step(0)
    sums = Sums(run.world.device)
    for batch in step.micro_batches:
        sums.add(*run.trainee.summed_loss(batch.to(run.world.device)))
    run.trainee.train()
    loss, *metrics = run.world.all_reduce_sum(sums.loss, *sums.metrics.values())
    means = {name: value / step.weight for name, value in zip(sums.metrics, metrics, strict=True)}
    return loss / step.weight, means
