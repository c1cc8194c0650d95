"""What a recipe comes to: checked against its set and its base before anything heavy is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaku.data.recipe import Recipe, base_of_recipe
from chaku.data.rows.rendering import Rendering, find_tokenizer, open_rendering
from chaku.errors import UsageError
from chaku.models.tokenizers.tokenizer import load_tokenizer
from chaku.models.tokenizers.tokenizer_files import difference
from chaku.train import lineage
from chaku.train.base import Base, find_base
from chaku.train.batches import targets_of
from chaku.train.config import TrainConfig, run_folder, train_config
from chaku.train.hub_base import at_hub
from chaku.train.loss import NO_TARGET
from chaku.train.rows import Rows, checked_manifest
from chaku.train.schedule import num_steps


@dataclass(frozen=True)
class Plan:
    """A recipe with everything that it names, found and checked."""

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


def make_plan(recipe: Recipe, data: Path) -> Plan:
    """Check a recipe against its set and base. Raises UsageError or ModelError naming both sides of a mismatch."""
    config, base_name = train_config(recipe), base_of_recipe(recipe)
    manifest = checked_manifest(data)
    prefix, other = ("pairs-", "") if config.objective == "dpo" else ("", "pairs-")
    rows, heldout = Rows(data, f"{prefix}train"), Rows(data, f"{prefix}test")
    if not len(rows) and len(Rows(data, f"{other}train")):
        holds, wanted = ("conversations", "dpo") if config.objective == "dpo" else ("preference pairs", "supervised")
        fix = "add pairs to its inputs" if wanted == "dpo" else "say objective: dpo"
        raise UsageError(f"{data} holds only {holds}, objective {wanted} has nothing to learn", fix=fix)
    if not any((targets_of(rows[number]) != NO_TARGET).any() for number in range(len(rows))):
        raise UsageError(f"{data} trains on nothing: no token carries loss", fix=f"chaku data preview {data} shows it")
    base = at_hub(find_base(base_name), run_folder(recipe))
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
