"""A run that goes on from another's weights: which those are, whether they fit, and what is remembered of them.

Only weights are taken (or adapters). Optimiser, schedule and order of the rows begin anew.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.checkpoint.state_dict_loader import load as load_state

from chaku.errors import TrainingError, UsageError
from chaku.records import atomic_write, sha256_file
from chaku.train import checkpoint as checkpoints
from chaku.train.base import Base
from chaku.train.config import TrainConfig
from chaku.train.model import Trainee
from chaku.train.parallel import World
from chaku.weights.card import read_manifest
from chaku.weights.tensors import open_tensors

_ADAPTER_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Parent:
    """The run that another goes on from."""

    folder: Path
    manifest: dict[str, Any]
    named: Path | None = None
    """final/ or one checkpoint, where the recipe names it."""


@dataclass(frozen=True)
class Origin:
    """The very weights: a checkpoint, or final/."""

    folder: Path
    step: int
    sha256: str
    """Of a checkpoint's manifest, which holds those of its files; of final/, over its weights' files."""


def find_parent(config: TrainConfig, run: Path) -> Parent | None:
    """The run that `continue_from` names: a folder, a name beside `run`, or a checkpoint or final/ in one.

    None where it names none, or where `run` has begun and its parent is gone. Raises UsageError for what is not a run.
    """
    if config.continue_from is None:
        return None
    wanted = config.continue_from.expanduser()
    for place in (wanted, config.output / wanted):
        for folder, named in ((place, None), (place.parent, place), (place.parent.parent, place)):
            if (folder / "config.yaml").is_file() and (folder / "manifest.json").is_file() and place.is_dir():
                if folder.resolve() == run.resolve():
                    raise UsageError(
                        f"{run} can't continue from itself",
                        fix="continue it with --resume; --set name=NAME makes another run",
                    )
                return Parent(folder, read_manifest(folder), named)
    if _recorded(run) is not None:
        return None
    raise UsageError(
        f"continue_from: {wanted} is not a training run",
        fix=f"name a run's folder, or one of its checkpoints; `chaku runs list {config.output}` shows them",
        param="train.continue_from",
    )


def check_fit(parent: Parent, config: TrainConfig, base: Base, set_manifest: dict[str, Any]) -> None:
    """Raises UsageError naming both sides where a run can't take over the parent's weights."""
    before = parent.manifest["recipe"]
    data = parent.manifest["data"]
    final = parent.folder / "final"
    apart: list[tuple[str, Any, Any, str]] = []
    if not _is_same_base(parent.manifest["base"], base):
        apart.append(
            ("base", parent.manifest["base"]["name"], base.name, f"say base: {parent.manifest['base']['name']}")
        )
    if before["method"] != config.method:
        way = f"start from its result instead: base: {final}"
        if before["method"] != "full":
            way = f"merge its adapter (chaku weights merge BASE {final} -o DIR) and say base: DIR"
        apart.append(("method", before["method"], config.method, way))
    elif config.method != "full":
        lora = config.lora.model_dump(mode="json")
        for key in ("rank", "alpha", "targets"):
            theirs, ours = before["lora"][key], lora[key]
            if (sorted(theirs) != sorted(ours)) if key == "targets" else theirs != ours:
                apart.append((f"lora.{key}", theirs, ours, f"say lora: {{{key}: {theirs}}}"))
    if before.get("rope_scaling") != config.rope_scaling:
        was = before.get("rope_scaling")
        apart.append(("rope_scaling", was, config.rope_scaling, f"say rope_scaling: {was or 'null'}"))
    elif config.rope_scaling and data.get("pack_length") not in (None, set_manifest["pack_length"]):
        theirs, ours = data["pack_length"], set_manifest["pack_length"]
        apart.append(("pack_length", theirs, ours, f"build the set with pack_length: {theirs}"))
    if data.get("tokenizer_sha256") not in (None, set_manifest["tokenizer"]["hash"]):
        theirs, ours = data["tokenizer"], set_manifest["tokenizer"]["source"]
        apart.append(("tokenizer", theirs, ours, "build the set with the tokenizer of that run"))
    if apart:
        what, theirs, ours, way = apart[0]
        raise UsageError(f"{parent.folder} was trained with {what} {theirs}, this recipe says {ours}", fix=way)


def _is_same_base(before: dict[str, Any], base: Base) -> bool:
    for mine, theirs in ((base.sha256, before.get("sha256")), (base.revision, before.get("revision"))):
        if mine or theirs:
            return mine == theirs
    ours, theirs = (Path(name).expanduser() for name in (base.name, before["name"]))
    return theirs == ours or theirs.resolve() == ours.resolve()


def describe(parent: Parent, set_manifest: dict[str, Any]) -> list[str]:
    """What is said before it starts: where the weights come from, and whether the template changes."""
    lines = [f"goes on from the weights of {parent.named or parent.folder}"]
    before, now = parent.manifest["data"].get("template"), set_manifest["template"]["name"]
    if before not in (None, now):
        lines.append(f"warning: that run was trained with the template {before}, this one is with {now}")
    return lines


def start_from(parent: Parent | None, run: Path, trainee: Trainee, world: World) -> str:
    """Put the parent's weights into the trainee, and who it was into the manifest of `run`; what was done, as a line.

    A run that began already takes the very same weights again. Raises UsageError or TrainingError where they are gone.
    """
    origin, line = world.broadcast(_settle(parent, run) if world.is_rank_zero else (None, ""))
    if (origin.folder / "manifest.json").is_file():
        load_weights(origin.folder, trainee, world)
    else:
        _load_final(origin.folder, trainee, world)
    return str(line)


def _settle(parent: Parent | None, run: Path) -> tuple[Origin, str]:
    begun = _recorded(run)
    if begun is not None:
        try:
            origin = _origin(Path(begun["folder"]), begun["step"])
        except checkpoints.Invalid:
            origin = None
        if origin is None or origin.sha256 != begun["sha256"]:
            raise TrainingError(
                f"{begun['folder']}, with whose weights this run began, is not there or was changed",
                fix="call `chaku train` in the folder where it ran before, or start again with --overwrite",
            )
        return origin, f"begins again with the weights of {origin.folder}"
    assert parent is not None
    origin, skipped = _choose(parent)
    lines = [f"skipped {name}: {reason}" for name, reason in skipped]
    manifest = read_manifest(run)
    manifest["continued_from"] = {
        "name": parent.manifest["name"], "folder": str(origin.folder), "step": origin.step, "sha256": origin.sha256,
        "earlier": parent.manifest.get("continued_from"),
    }  # fmt: skip
    with atomic_write(run / "manifest.json") as file:
        file.write(orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    return origin, "\n".join([*lines, f"begins with the weights of {origin.folder}, after step {origin.step:,}"])


def _recorded(run: Path) -> dict[str, Any] | None:
    path = run / "manifest.json"
    found: dict[str, Any] | None = orjson.loads(path.read_bytes()).get("continued_from") if path.is_file() else None
    return found


def _choose(parent: Parent) -> tuple[Origin, list[tuple[str, str]]]:
    """What is named; the final weights; or the newest valid checkpoint, with those passed over."""
    steps = (parent.manifest.get("result") or {}).get("steps", 0)
    final = parent.folder / "final"
    if parent.named is None and parent.manifest.get("finished") and final.is_dir():
        origin = _origin(final, steps)
    elif parent.named is not None:
        try:
            origin = _origin(parent.named, steps)
        except checkpoints.Invalid as reason:
            raise UsageError(f"{parent.named} is not a valid checkpoint: {reason}", fix="name another one") from None
    else:
        found, skipped = checkpoints.newest_in(parent.folder / "checkpoints")
        if found is None:
            reasons = "".join(f"; {name}: {reason}" for name, reason in skipped)
            raise UsageError(
                f"{parent.folder} has neither final weights nor a valid checkpoint{reasons}", fix="let it train first"
            )
        return Origin(found.folder, found.step, sha256_file(found.folder / "manifest.json")), skipped
    if origin is None:
        raise UsageError(f"{parent.named or final} holds no weights", fix="name a checkpoint of that run, or final/")
    return origin, []


def _origin(folder: Path, steps: int) -> Origin | None:
    if (folder / "manifest.json").is_file():
        return Origin(folder, checkpoints.check(folder).step, sha256_file(folder / "manifest.json"))
    files = sorted(folder.glob("*.safetensors"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(f"{file.name} {sha256_file(file)}\n".encode())
    return Origin(folder, steps, digest.hexdigest()) if files else None


def load_weights(folder: Path, trainee: Trainee, world: World) -> None:
    """Put the weights of a checkpoint into the trainee, and nothing else of it."""
    options = StateDictOptions(ignore_frozen_params=True, strict=False)
    state = {"model": get_model_state_dict(trainee, options=options)}
    checkpoints.expect_one_process()
    load_state(state, checkpoint_id=folder, no_dist=world.size == 1)
    set_model_state_dict(trainee, state["model"], options=options)


def _load_final(folder: Path, trainee: Trainee, world: World) -> None:
    """Every process calls this; one reads."""
    state: dict[str, Any] = _read_final(folder, trainee) if world.is_rank_zero else {}
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=world.size > 1, strict=False)
    set_model_state_dict(trainee, state, options=options)


def _read_final(folder: Path, trainee: Trainee) -> dict[str, Any]:
    """final/ under the trainee's names, all that learns and nothing else. Raises TrainingError where it is not so."""
    tensors, learning = open_tensors(folder), dict[str, torch.Size]()
    for name, parameter in trainee.named_parameters():  # those that are tied once
        if parameter.requires_grad:
            learning[name] = parameter.shape
    stored = {_stored_name(name, trainee.adapters is not None): name for name in learning}
    if missing := sorted(stored.keys() - set(tensors.names)):
        raise TrainingError(f"{folder} lacks {len(missing)} tensors: {missing[0]} ...", fix="name a checkpoint instead")
    state = {}
    for there, here in stored.items():
        value = tensors.load(there).float()
        if value.shape != learning[here]:
            raise TrainingError(f"{there} of {folder} is {list(value.shape)}, not {list(learning[here])}")
        state[here] = value
    return state


def _stored_name(name: str, is_adapter: bool) -> str:
    plain = name.removeprefix("causal.")
    return _ADAPTER_PREFIX + plain.replace(".default.", ".") if is_adapter else plain
