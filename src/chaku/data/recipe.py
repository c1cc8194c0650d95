"""The recipe: one YAML file for data and training. This module owns its `data` section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator

from chaku.config import Frozen, Loaded, load
from chaku.data.presets import data_preset
from chaku.data.rules.moderation import ModerationConfig
from chaku.data.rules.table import actions
from chaku.errors import ConfigError, UsageError


class DataConfig(Frozen):
    """How raw conversations become a built set."""

    inputs: tuple[Path, ...] = ()
    """Files to read: JSON, JSONL, Parquet, also .gz and .zst."""
    tokenizer: str = "smollm2-135m"
    """Built-in model name, or a path: a GGUF, tokenizer.json, a SentencePiece model, or a model's folder."""
    template: str | None = None
    """Name of a chat template. Default: the one that belongs to the tokenizer."""
    context: int = Field(2048, ge=16, le=1 << 20)
    """Most tokens of a segment, rendered with the template."""
    pack: bool = True
    """Put several short segments into one row."""
    pack_length: int | None = Field(None, ge=16, le=1 << 20)
    """Tokens of a packed row. Default: context."""
    seed: int = Field(0, ge=0)
    """Decides the order of the rows, and the test set."""
    test_fraction: float = Field(0.01, ge=0, lt=1)
    """Share of conversations for the test set, by hash: adding data moves none of them."""
    system: str | None = None
    """System prompt for conversations without one."""
    train_on: Literal["all", "last"] = "all"
    """Which answers carry loss."""
    overlong: Literal["cut", "reject"] = "cut"
    """What happens to a round that is longer than the context."""
    oasst_paths: Literal["best", "all"] = "best"
    """Paths through a message tree: the best-ranked one, or every one that ends with an answer."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes to keep. Empty keeps all."""
    near_duplicate_similarity: float = Field(0.85, ge=0.3, le=1)
    """Two conversations whose word triples have this Jaccard similarity (estimated) count as the same."""
    decontaminate: tuple[Path, ...] = ()
    """Question files (FastChat's question.jsonl, or anything the importer reads) that must not be trained on."""
    contamination_overlap: float = Field(0.5, gt=0, le=1)
    """A user turn that holds this share of a question's word 8-grams counts as contaminated."""
    moderation: ModerationConfig | None = None
    """A moderation model that judges every turn. Default: none."""
    rules: dict[str, str] = Field(default_factory=dict)
    """Rule name to action (drop, flag, redact, off), for actions that differ from the table in docs/data.md."""

    @field_validator("rules")
    @classmethod
    def _known_rules(cls, value: dict[str, str]) -> dict[str, str]:
        actions(value)
        return value

    @property
    def row_length(self) -> int:
        """Most tokens in one row."""
        return self.pack_length or self.context


class Recipe(Frozen):
    """One file for data and training."""

    EXAMPLES: ClassVar[dict[str, str]] = {
        "name": "my-run", "base": "smollm2-135m", "data": "{inputs: [shares.json]}", "train": "{preset: tiny}",
        "inputs": "[shares.json]", "context": "2048", "pack_length": "2048", "languages": "[en]",
        "rules": "{refusal: drop}", "moderation": "{url: 'http://127.0.0.1:8000/v1'}",
    }  # fmt: skip
    """What an error about a key shows."""
    name: str = "unnamed"
    """Name of the run and of its folder."""
    base: str | None = None
    """The model that training starts from: a built-in name, a folder, a GGUF, or a hub id."""
    developer: str | None = None
    """Who makes the model, for its card."""
    licence: str | None = None
    """Licence of the result, such as apache-2.0. Default: the base's."""
    data: DataConfig | Path = DataConfig()
    """How to build the set, or the folder of a built one."""
    train: dict[str, Any] = Field(default_factory=dict)
    """How to train. The data pipeline does not read it."""


def data_config(recipe: Recipe) -> DataConfig | Path:
    """How a recipe's set is built, or the folder of a built set: `data build`, `train` and `estimate` all ask here.

    The preset of the `train` section and the base's tokenizer stand below the `data` section. Raises ConfigError.
    """
    if isinstance(recipe.data, Path):
        if recipe.data.is_file():
            raise ConfigError(
                f"data is the file {recipe.data}, not the folder of a built set",
                fix=f"to build a set from it, write data: {{inputs: [{recipe.data}]}}", param="data",
            )  # fmt: skip
        return recipe.data
    return DataConfig.model_validate({**_defaults(recipe), **recipe.data.model_dump(exclude_unset=True)})


def base_of_recipe(recipe: Recipe) -> str:
    """The base model that a recipe has to name for training. Raises UsageError."""
    if recipe.base is None:
        raise UsageError("the recipe names no base model", fix="write it such as base: smollm2-135m", param="base")
    return recipe.base


def _defaults(recipe: Recipe) -> dict[str, Any]:
    """What the base and the preset say about data."""
    tokenizer = {"tokenizer": recipe.base} if recipe.base else {}
    return {**tokenizer, **data_preset(recipe.train.get("preset"))}


def differences(recipe: Recipe, manifest: Mapping[str, Any]) -> list[str]:
    """Where a built set that the recipe names is not what its preset asks for: one sentence per key."""
    if not isinstance(recipe.data, Path):
        return []
    built = manifest["config"]
    return [
        f"the set has {key} {built[key] if built[key] is not None else 'by default'},"
        f" preset {recipe.train['preset']} has {wanted}"
        for key, wanted in data_preset(recipe.train.get("preset")).items()
        if built[key] != wanted
    ]


def load_data(recipe: Path | None, flags: Mapping[str, Any]) -> Loaded[DataConfig]:
    """How `data build` builds: flags over a recipe's data, and where each value came from.

    Raises ConfigError naming the key and the nearest known one.
    """
    origins: dict[str, str] = {}
    section: dict[str, Any] = {}
    if recipe is not None:
        whole = load(Recipe, recipe).config
        config = data_config(whole)
        if isinstance(config, Path) or isinstance(whole.data, Path):
            raise ConfigError(
                f"{recipe}: data is the folder {config}, which is built already", fix="give a `data:` section"
            )
        section = config.model_dump(exclude_unset=True)
        origins = dict.fromkeys(section, str(recipe))
        of_preset = data_preset(whole.train.get("preset")).keys() - whole.data.model_fields_set
        origins |= dict.fromkeys(of_preset, f"preset {whole.train['preset']}") if of_preset else {}
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    loaded = load(DataConfig, None, {**section, **given})
    origins |= dict.fromkeys(given, "flag")
    return Loaded(loaded.config, {name: origins.get(name, "default") for name in loaded.origins})
