"""The set that a recipe trains on: a folder that it names, or its raw files, built beside the run."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from chaku.cli.progress.building import building
from chaku.data.build import build
from chaku.data.recipe import data_config
from chaku.train.base import find_base
from chaku.train.config import run_folder
from chaku.train.hub_base import at_hub

if TYPE_CHECKING:
    from chaku.data.recipe import Recipe


def training_set(read: Recipe, *, is_rank_zero: bool = True, scratch: Path | None = None) -> Path:
    """The folder of a recipe's built set; raw files are built beside the run first, or in `scratch`, by one process.

    A run that has begun keeps the set that it began with, though an older chaku built it.
    """
    config = data_config(read)
    if isinstance(config, Path):
        return config

    folder = run_folder(read)
    if is_rank_zero and read.base == config.tokenizer:
        at_hub(find_base(read.base), folder)  # its tokenizer, where it is on the hub
    target = (scratch or folder.parent) / f"{folder.name}-data"
    if is_rank_zero:
        with building() as watcher:
            built = build(config, target, name=read.name, keep_older=(folder / "config.yaml").exists(), watcher=watcher)
        click.echo(f"{target}: {'built before' if built.was_there else 'built'}", err=True)
        return target
    while not (target / "manifest.json").exists():
        time.sleep(0.5)
    return target
