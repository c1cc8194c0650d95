"""The recipe: one YAML file for data and training. This module owns its `data` section."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from chaku.config import Frozen, Loaded, load
from chaku.data.rules.moderation import ModerationConfig
from chaku.data.rules.table import actions


class DataConfig(Frozen):
    """How raw conversations become a built set."""

    inputs: tuple[Path, ...] = ()
    """Files to read: JSON, JSONL, Parquet, also .gz and .zst."""
    tokenizer: str = "smollm2-135m"
    """Built-in model name, or a path: a GGUF, tokenizer.json, a SentencePiece model, or a model's folder."""
    template: str | None = None
    """Name of a chat template. Default: the one that belongs to the tokenizer."""
    context: int = Field(2048, ge=16, le=1 << 20)
    """Tokens; no segment is longer when rendered whole."""
    pack: bool = True
    """Put several short segments into one row."""
    pack_length: int | None = Field(None, ge=16, le=1 << 20)
    """Tokens of a packed row. Default: context."""
    seed: int = Field(0, ge=0)
    """Orders the rows, and chooses the test set."""
    test_fraction: float = Field(0.01, ge=0, lt=1)
    """Share of conversations for the test set, by hash: adding data moves none of them."""
    system: str | None = None
    """System prompt for conversations that bring none."""
    train_on: Literal["all", "last"] = "all"
    """Which answers carry loss."""
    overlong: Literal["cut", "reject"] = "cut"
    """What becomes of one round that is longer than the context."""
    oasst_paths: Literal["best", "all"] = "best"
    """Paths taken through a message tree: the best-ranked, or every one that ends with an answer."""
    languages: tuple[str, ...] = ()
    """ISO 639-1 codes to keep. Empty keeps all."""
    near_duplicate_similarity: float = Field(0.85, gt=0, le=1)
    """Estimated Jaccard similarity of word triples from which two conversations count as the same."""
    decontaminate: tuple[Path, ...] = ()
    """Question files (FastChat's question.jsonl, or anything the importer reads) that must not be trained on."""
    contamination_overlap: float = Field(0.5, gt=0, le=1)
    """Share of a question's word 8-grams found in one user turn from which it counts as contaminated."""
    moderation: ModerationConfig | None = None
    rules: dict[str, str] = Field(default_factory=dict)
    """Actions (drop, flag, redact, off) that differ from the table in docs/data.md, by rule name."""

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

    name: str = "unnamed"
    base: str | None = None
    """The model that training starts from."""
    developer: str | None = None
    """Who makes the model; stands in its card."""
    licence: str | None = None
    """Under which terms the result is given on, such as apache-2.0. Default: the base's."""
    data: DataConfig | Path = DataConfig()
    """How to build the set, or the folder of a built one."""
    train: dict[str, Any] = Field(default_factory=dict)
    """Training's own section; the data pipeline leaves it alone."""


def load_data(recipe: Path | None, flags: Mapping[str, Any]) -> Loaded[DataConfig]:
    """The `data` section of a recipe with flags on top, and where each value came from.

    Raises ConfigError naming the key and the nearest known one.
    """
    section: dict[str, Any] = {}
    if recipe is not None:
        whole = load(Recipe, recipe).config
        if isinstance(whole.data, Path):
            from chaku.errors import ConfigError

            raise ConfigError(
                f"{recipe}: data is the folder {whole.data}, which is built already", fix="give a `data:` section"
            )
        section = {"tokenizer": whole.base} if whole.base else {}  # as training builds it
        section |= whole.data.model_dump(exclude_unset=True)
    given = {name: value for name, value in flags.items() if value not in (None, ())}
    loaded = load(DataConfig, None, {**section, **given})
    origins = {
        name: "flag" if name in given else str(recipe) if name in section else "default" for name in loaded.origins
    }
    return Loaded(loaded.config, origins)
