"""A run from a plan: opens the processes, the model and the log, trains, and writes final/."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from chaku.records import atomic_write
from chaku.spot_notice import watched
from chaku.train import checkpoint as checkpoints
from chaku.train import lineage, loop
from chaku.train.batches import Batches
from chaku.train.final import write_final
from chaku.train.heartbeat import heartbeat
from chaku.train.interruptions import check_shares, explained, stop_on_signal
from chaku.train.log import Log
from chaku.train.model import Trainee, cost_of
from chaku.train.objective import weigh_of
from chaku.train.optimiser import open_optimiser
from chaku.train.parallel import World, open_world, peak_flops_per_s
from chaku.train.parallelize import open_trainee, slow_arithmetic
from chaku.train.placement import compiles
from chaku.train.plan import Plan
from chaku.train.reference import with_reference
from chaku.train.rows import RowSource
from chaku.train.run_records import claim, recorded, result_of, write_manifest
from chaku.train.samples import answers
from chaku.train.tracker import open_tracker
from chaku.weights.card import model_card, read_manifest


def execute(plan: Plan, listener: loop.Listener, *, resume: bool = False) -> Path:
    """Train as planned and return the folder of the result. Under torchrun every process calls this.

    Raises UsageError when the folder holds a run already and `resume` is false, or a run of another recipe.
    """
    watches = plan.config.spot_notice and os.environ.get("LOCAL_RANK", "0") == "0"  # one process of each host
    with (
        open_world(plan.config) as world, stop_on_signal() as was_asked, watched(watches) as spot,
        explained(world, plan.config, plan.folder),
    ):  # fmt: skip
        check_shares(plan.config, world)
        if world.is_rank_zero:
            claim(plan, resume)
        world.barrier()
        if warning := slow_arithmetic(plan.config, world.device.type):
            listener.note(f"warning: {warning}")
        trainee = open_trainee(plan.base, plan.config, plan.set_manifest["pack_length"], world)
        checkpoints.check_room(plan.folder, trainee, plan.config.keep_last, plan.config.keep_best)
        optimiser = open_optimiser(trainee, plan.config)
        saved = checkpoints.Checkpoints(
            plan.folder / "checkpoints", world, plan.config.keep_last, plan.config.keep_best,
            plan.config.save_in_background,
        )  # fmt: skip
        newest, skipped = saved.newest()
        for name, reason in skipped:
            listener.note(f"skipped checkpoint {name}: {reason}")
        first = newest.step if newest else 0
        if newest is None and plan.config.continue_from is not None:
            listener.note(lineage.start_from(plan.parent, plan.folder, trainee, world))
        rows, heldout = _rows(plan, trainee, world, listener, has_begun=newest is not None)
        if newest is not None:
            checkpoints.load(newest, trainee, optimiser, world)
            listener.note(f"resuming after step {first:,} of {plan.total:,}")
        tracker = open_tracker(plan.config.track if world.is_rank_zero else None, plan.folder, recorded(plan), first)
        log = Log(plan.folder / "log.jsonl" if world.is_rank_zero else None, first, tracker)
        if newest is not None or skipped:
            log.event("resumed", first, skipped=dict(skipped), processes=world.size)
        run = loop.Run(
            trainee, optimiser, _batches(plan, rows, world), _heldout(plan, heldout, world), log, saved, world,
            plan.config, plan.total, cost_of(trainee), peak_flops_per_s(plan.config, world), listener,
            lambda: was_asked() or spot.has_notice,
            lambda: answers(trainee, plan.rendering, plan.config.sample_prompts, world),
        )  # fmt: skip
        try:
            with world.step_timeout(), heartbeat(world.store, world.rank, world.size) as beat:
                run.check = beat.check
                loop.train(run, first)
        finally:
            saved.close()
            log.close()
        write_final(
            plan.folder / "final", trainee, plan.base, plan.config, plan.rendering, plan.tokenizer_path, world
        )  # fmt: skip
        if world.is_rank_zero:
            write_manifest(plan, result_of(plan, world))
            with atomic_write(plan.folder / "final" / "README.md") as file:
                file.write(model_card(read_manifest(plan.folder)).encode())
    return plan.folder / "final"


def _rows(
    plan: Plan, trainee: Trainee, world: World, listener: loop.Listener, *, has_begun: bool
) -> tuple[RowSource, RowSource]:
    """Training and held-out rows; for preference training with what the model says of them before its first step."""
    if plan.config.objective != "dpo":
        return plan.rows, plan.heldout
    origin = (read_manifest(plan.folder).get("continued_from") or {}).get("sha256")

    def start() -> None:
        if has_begun and plan.config.continue_from is not None:
            lineage.start_from(plan.parent, plan.folder, trainee, world)

    return with_reference(plan, trainee, world, _fixed_length(plan, world), origin, start, listener.note)


def _fixed_length(plan: Plan, world: World) -> int | None:
    """Of all micro-batches, where something is compiled or captured for one shape."""
    is_fixed = compiles(plan.config, world.device.type) or world.has_gpu
    return plan.set_manifest["pack_length"] if is_fixed else None


def _batches(plan: Plan, rows: RowSource, world: World) -> Batches:
    config = plan.config
    return Batches(
        rows, config.batch_rows, config.micro_rows, config.seed, world.rank, world.size, _fixed_length(plan, world),
        world.has_gpu, weigh_of(config),
    )  # fmt: skip


def _heldout(plan: Plan, rows: RowSource, world: World) -> Batches | None:
    if not len(rows):
        return None
    number = min(len(rows), plan.config.evaluate_rows)
    return replace(_batches(plan, rows, world), batch_rows=number, seed=0)
