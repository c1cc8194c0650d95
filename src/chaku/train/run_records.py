"""config.yaml and manifest.json of a run: what it is made of and, at its end, what came out."""

from __future__ import annotations

import datetime
import platform
import subprocess
from pathlib import Path
from typing import Any

import orjson
import torch
import yaml

import chaku
from chaku.errors import UsageError
from chaku.records import atomic_write, sha256_file
from chaku.train.config import FREE_ON_RESUME, TrainConfig
from chaku.train.log import StepRecord, read_log
from chaku.train.parallel import World
from chaku.train.plan import Plan


def claim(plan: Plan, resume: bool) -> None:
    """Make the folder of a new run, or see that it holds this very step."""
    path = plan.folder / "config.yaml"
    wanted = recorded(plan)
    if path.exists():
        if not resume:
            refuse_existing(plan.folder)
        before = _with_defaults(yaml.safe_load(path.read_text()))
        apart = [key for key in sorted(wanted) if wanted[key] != before.get(key)]
        apart = [key for key in apart if key.removeprefix("train.") not in FREE_ON_RESUME]
        if apart:
            differences = ", ".join(f"{key} {before.get(key)} against {wanted[key]}" for key in apart)
            raise UsageError(
                f"{plan.folder} is a run of another recipe: {differences}", fix="give the run another name"
            )
    with atomic_write(path) as file:
        file.write(yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True).encode())
    if not (plan.folder / "manifest.json").exists():
        write_manifest(plan, None)


def _with_defaults(before: dict[str, Any]) -> dict[str, Any]:
    """An older run's config.yaml with the keys that came since at their defaults: it ran as these do."""
    defaults = TrainConfig().model_dump(mode="json")
    return {f"train.{key}": value for key, value in defaults.items()} | before


def refuse_existing(folder: Path) -> None:
    """Raise UsageError where the folder holds a run, and say whether that one is finished."""
    if not (folder / "config.yaml").exists():
        return
    manifest = folder / "manifest.json"
    if manifest.exists() and orjson.loads(manifest.read_bytes())["finished"] is not None:
        fix = f"serve it: chaku serve {folder}; train anew with --overwrite, or give another name"
        raise UsageError(f"{folder} holds a finished run", fix=fix)
    raise UsageError(f"{folder} holds a run already", fix="continue it with --resume, or give another name")


def is_finished(plan: Plan) -> bool:
    """Whether the run of a plan has trained to its end and its result is there."""
    path = plan.folder / "manifest.json"
    if not path.exists() or not any((plan.folder / "final").glob("*.safetensors")):
        return False
    manifest = orjson.loads(path.read_bytes())
    return manifest["finished"] is not None and manifest["result"]["steps"] == plan.total


def recorded(plan: Plan) -> dict[str, Any]:
    """Everything that decides a run's numbers, flat."""
    train = plan.config.model_dump(mode="json")
    return {
        "name": plan.recipe.name, "base": plan.recipe.base, "data": str(plan.data),
        "data_manifest_sha256": sha256_file(plan.data / "manifest.json"), "steps": plan.total,
        **{f"train.{key}": value for key, value in train.items()},
    }  # fmt: skip


def write_manifest(plan: Plan, result: dict[str, Any] | None) -> None:
    """manifest.json: what a run is plan of and, at its end, what came out."""
    facts, base = plan.set_manifest["audit"]["facts"], plan.base
    path = plan.folder / "manifest.json"
    before = orjson.loads(path.read_bytes()) if path.exists() else {}
    named = {
        "name": base.name, "hub_id": base.hub_id, "revision": base.revision, "sha256": base.sha256,
        "licence": base.licence, "licence_url": base.licence_url,
    }  # fmt: skip
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    manifest = {
        "name": plan.recipe.name,
        "developer": plan.recipe.developer,
        "licence": plan.recipe.licence,
        "base": {key: value for key, value in named.items() if value is not None},
        "continued_from": before.get("continued_from"),
        "chaku": chaku.__version__,
        "git_commit": _git_commit(),
        "started": before.get("started", now),
        "finished": (before.get("finished") or now) if result is not None else None,
        "data": {
            "folder": str(plan.data),
            "manifest_sha256": sha256_file(plan.data / "manifest.json"),
            **(
                {"num_pairs": facts["pairs"]["train"]}
                if plan.config.objective == "dpo"
                else {"num_conversations": facts["conversations"]["train"]}
            ),
            "num_rows": len(plan.rows),
            "num_tokens": facts["tokens"],
            "num_trained_tokens": facts["trained_tokens"],
            "template": plan.set_manifest["template"]["name"],
            "template_hash": plan.set_manifest["template"]["hash"],
            "tokenizer": plan.set_manifest["tokenizer"]["source"],
            "tokenizer_sha256": plan.set_manifest["tokenizer"]["hash"],
            "pack_length": plan.set_manifest["pack_length"],
        },
        "recipe": plan.config.model_dump(mode="json"),
        "result": result,
    }
    with atomic_write(path) as file:
        file.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def result_of(plan: Plan, world: World) -> dict[str, Any]:
    """What a finished run's manifest says of its outcome."""
    steps = [StepRecord(**line) for line in read_log(plan.folder / "log.jsonl") if "loss" in line]
    hardware = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.machine() + " CPU"
    measured = [step.heldout_loss for step in steps if step.heldout_loss is not None]
    paid = [step.dollars for step in steps if step.dollars is not None]
    result = {
        "steps": len(steps), "epochs": plan.config.epochs, "final_loss": steps[-1].loss,
        "heldout_loss": measured[-1] if measured else None, "hours": sum(step.seconds for step in steps) / 3600,
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
