"""A run is a folder: config.yaml, manifest.json, log.jsonl, checkpoints/step-N, final/. This makes and resumes one."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson
import torch
import yaml

import chaku
from chaku.data.recipe import Recipe
from chaku.data.rows.rendering import Rendering, find_tokenizer, open_rendering
from chaku.errors import TrainingError, UsageError
from chaku.models.tokenizers.tokenizer import load_tokenizer
from chaku.models.tokenizers.tokenizer_files import difference
from chaku.records import atomic_write, sha256_file
from chaku.spot_notice import watched
from chaku.train import checkpoint as checkpoints
from chaku.train import lineage, loop
from chaku.train.base import Base, find_base
from chaku.train.batches import Batches, targets_of
from chaku.train.config import FREE_ON_RESUME, TrainConfig, run_folder, train_config
from chaku.train.final import write_final
from chaku.train.hub_base import at_hub
from chaku.train.log import Log, StepRecord, read_log
from chaku.train.loss import NO_TARGET
from chaku.train.model import cost_of
from chaku.train.optimiser import open_optimiser
from chaku.train.parallel import World, open_world, peak_flops_per_s
from chaku.train.rows import Rows, checked_manifest
from chaku.train.samples import answers
from chaku.train.schedule import num_steps
from chaku.train.sharding import open_spread
from chaku.train.tracker import open_tracker
from chaku.weights.card import model_card, read_manifest

_LOST = ("Connection closed by peer", "Connection reset by peer", "Timed out", "timed out", "NCCL", "Broken pipe")


@dataclass(frozen=True)
class Plan:
    """What a recipe comes to, before anything heavy is opened."""

    recipe: Recipe
    config: TrainConfig
    folder: Path
    data: Path
    set_manifest: dict[str, Any]
    rows: Rows
    heldout: Rows
    base: Base
    rendering: Rendering
    tokenizer_path: Path
    parent: lineage.Parent | None = None
    """The run whose weights this one begins with."""

    @property
    def total(self) -> int:
        """Steps of the whole run."""
        return num_steps(len(self.rows), self.config)


def plan(recipe: Recipe, data: Path) -> Plan:
    """Check a recipe against its set and base. Raises UsageError or ModelError naming both sides of a mismatch."""
    config = train_config(recipe)
    if recipe.base is None:
        raise UsageError("the recipe names no base model", fix="write it such as base: smollm2-135m", param="base")
    manifest = checked_manifest(data)
    rows, heldout = Rows(data, "train"), Rows(data, "test")
    if not any((targets_of(rows[number]) != NO_TARGET).any() for number in range(len(rows))):
        raise UsageError(f"{data} trains on nothing: no token carries loss", fix=f"chaku data preview {data} shows it")
    base = at_hub(find_base(recipe.base), run_folder(recipe))
    source = manifest["tokenizer"]["source"]
    rendering = open_rendering(source, manifest["config"]["template"], manifest["config"]["train_on"])
    if rendering.tokenizer.hash != manifest["tokenizer"]["hash"]:
        raise UsageError(f"tokenizer {source} is not the one that {data} was built with", fix="build the set again")
    if base.path is not None and (reason := difference(rendering.tokenizer, load_tokenizer(base.path))):
        raise UsageError(
            f"the set was built with the tokenizer of {source}, base {base.name} has another: {reason}",
            fix=f"build the set with --tokenizer {base.name}",
        )
    folder, tokenizer_path = run_folder(recipe), find_tokenizer(source)
    if (parent := lineage.find_parent(config, folder)) is not None:
        lineage.check_fit(parent, config, base, manifest)
    return Plan(recipe, config, folder, data, manifest, rows, heldout, base, rendering, tokenizer_path, parent)


def execute(made: Plan, listener: loop.Listener, *, resume: bool = False) -> Path:
    """Train as planned and return the folder of the result. Under torchrun every process calls this.

    Raises UsageError when the folder holds a run already and `resume` is false, or a run of another recipe.
    """
    watches = made.config.spot_notice and os.environ.get("LOCAL_RANK", "0") == "0"  # one process of each host
    with (
        open_world(made.config) as world, _stop_on_signal() as was_asked, watched(watches) as spot,
        _lost_rank(world, made.folder),
    ):  # fmt: skip
        if world.leads:
            _claim(made, resume)
        world.wait()
        trainee = open_spread(made.base, made.config, made.set_manifest["pack_length"], world)
        checkpoints.check_room(made.folder, trainee, made.config.keep_last, made.config.keep_best)
        optimiser = open_optimiser(trainee, made.config)
        saved = checkpoints.Checkpoints(
            made.folder / "checkpoints", world, made.config.keep_last, made.config.keep_best,
            made.config.save_in_background,
        )  # fmt: skip
        newest, skipped = saved.newest()
        for name, reason in skipped:
            listener.said(f"skipped checkpoint {name}: {reason}")
        first = newest.step if newest else 0
        if newest is not None:
            checkpoints.load(newest, trainee, optimiser, world)
            listener.said(f"going on behind step {first:,} of {made.total:,}")
        elif made.config.continue_from is not None:
            listener.said(lineage.start_from(made.parent, made.folder, trainee, world))
        tracker = open_tracker(made.config.track if world.leads else None, made.folder, recorded(made), first)
        log = Log(made.folder / "log.jsonl" if world.leads else None, first, tracker)
        if newest is not None or skipped:
            log.event("resumed", first, skipped=dict(skipped), processes=world.size)
        run = loop.Run(
            trainee, optimiser, _batches(made, made.rows, world), _heldout(made, world), log, saved, world,
            made.config, made.total, cost_of(trainee), peak_flops_per_s(made.config, world), listener,
            lambda: was_asked() or spot.has_notice,
            lambda: answers(trainee, made.rendering, made.config.sample_prompts, world),
        )  # fmt: skip
        try:
            loop.train(run, first)
        finally:
            saved.close()
            log.close()
        write_final(made.folder / "final", trainee, made.rendering, made.tokenizer_path, world)
        if world.leads:
            write_manifest(made, _result(made, world))
            with atomic_write(made.folder / "final" / "README.md") as file:
                file.write(model_card(read_manifest(made.folder)).encode())
    return made.folder / "final"


def _batches(made: Plan, rows: Rows, world: World) -> Batches:
    config = made.config
    fixed = made.set_manifest["pack_length"] if config.compile or world.has_gpu else None
    return Batches(
        rows, config.batch_rows, config.micro_rows, config.seed, world.rank, world.size, fixed, world.has_gpu
    )


def _heldout(made: Plan, world: World) -> Batches | None:
    if not len(made.heldout):
        return None
    number = min(len(made.heldout), made.config.evaluate_rows)
    return replace(_batches(made, made.heldout, world), batch_rows=number, seed=0)


def _claim(made: Plan, resume: bool) -> None:
    """Make the folder of a new run, or see that it holds this very one."""
    path = made.folder / "config.yaml"
    wanted = recorded(made)
    if path.exists():
        if not resume:
            raise UsageError(
                f"{made.folder} holds a run already", fix="say --resume auto to go on with it, or give another name"
            )
        before = yaml.safe_load(path.read_text())
        apart = [key for key in sorted(wanted.keys() | before.keys()) if wanted.get(key) != before.get(key)]
        apart = [key for key in apart if key.removeprefix("train.") not in FREE_ON_RESUME]
        if apart:
            said = ", ".join(f"{key} {before.get(key)} against {wanted.get(key)}" for key in apart)
            raise UsageError(f"{made.folder} is a run of another recipe: {said}", fix="give the run another name")
    with atomic_write(path) as file:
        file.write(yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True).encode())
    if not (made.folder / "manifest.json").exists():
        write_manifest(made, None)


def recorded(made: Plan) -> dict[str, Any]:
    """Everything that decides a run's numbers, flat."""
    train = made.config.model_dump(mode="json")
    return {
        "name": made.recipe.name, "base": made.recipe.base, "data": str(made.data),
        "data_manifest_sha256": sha256_file(made.data / "manifest.json"), "steps": made.total,
        **{f"train.{key}": value for key, value in train.items()},
    }  # fmt: skip


def write_manifest(made: Plan, result: dict[str, Any] | None) -> None:
    """manifest.json: what a run is made of and, at its end, what came out."""
    facts, base = made.set_manifest["audit"]["facts"], made.base
    path = made.folder / "manifest.json"
    before = orjson.loads(path.read_bytes()) if path.exists() else {}
    named = {
        "name": base.name, "hub_id": base.hub_id, "revision": base.revision, "sha256": base.sha256,
        "licence": base.licence, "licence_url": base.licence_url,
    }  # fmt: skip
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    manifest = {
        "name": made.recipe.name,
        "developer": made.recipe.developer,
        "licence": made.recipe.licence,
        "base": {key: value for key, value in named.items() if value is not None},
        "continued_from": before.get("continued_from"),
        "chaku": chaku.__version__,
        "git_commit": _git_commit(),
        "started": before.get("started", now),
        "finished": (before.get("finished") or now) if result is not None else None,
        "data": {
            "folder": str(made.data),
            "manifest_sha256": sha256_file(made.data / "manifest.json"),
            "num_conversations": facts["conversations"]["train"],
            "num_rows": len(made.rows),
            "num_tokens": facts["tokens"],
            "num_trained_tokens": facts["trained_tokens"],
            "template": made.set_manifest["template"]["name"],
            "template_hash": made.set_manifest["template"]["hash"],
            "tokenizer": made.set_manifest["tokenizer"]["source"],
            "tokenizer_sha256": made.set_manifest["tokenizer"]["hash"],
            "pack_length": made.set_manifest["pack_length"],
        },
        "recipe": made.config.model_dump(mode="json"),
        "result": result,
    }
    with atomic_write(path) as file:
        file.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _result(made: Plan, world: World) -> dict[str, Any]:
    steps = [StepRecord(**one) for one in read_log(made.folder / "log.jsonl") if "loss" in one]
    hardware = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.machine() + " CPU"
    measured = [one.heldout_loss for one in steps if one.heldout_loss is not None]
    paid = [one.dollars for one in steps if one.dollars is not None]
    result = {
        "steps": len(steps), "epochs": made.config.epochs, "final_loss": steps[-1].loss,
        "heldout_loss": measured[-1] if measured else None, "hours": sum(one.seconds for one in steps) / 3600,
        "dollars": paid[-1] if paid else None, "hardware": f"{world.size} x {hardware}",
    }  # fmt: skip
    return {key: value for key, value in result.items() if value is not None}


def _git_commit() -> str | None:
    """The commit of chaku's own source, where it runs from a checkout."""
    command = ["git", "-C", str(Path(chaku.__file__).parent), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


@contextlib.contextmanager
def _stop_on_signal() -> Iterator[Callable[[], bool]]:
    """SIGTERM and SIGINT ask for a stop behind the step that runs; a second SIGINT ends at once."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def heard(number: int, _frame: object) -> None:
        asked.append(number)
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    for number in before:
        signal.signal(number, heard)
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _lost_rank(world: World, folder: Path) -> Iterator[None]:
    started = time.monotonic()
    try:
        yield
    except RuntimeError as error:
        if world.size == 1 or not any(sign in str(error) for sign in _LOST):
            raise
        raise TrainingError(
            f"process {world.rank} lost another of the {world.size} after {time.monotonic() - started:.0f} s:"
            f" {str(error).strip().splitlines()[0]}",
            fix=f"start again with --resume auto: the checkpoints in {folder / 'checkpoints'} are intact",
        ) from error
