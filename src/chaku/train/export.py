"""One checkpoint of a run as the folder that its final/ would be."""

from __future__ import annotations

from pathlib import Path

import torch

from chaku.data.manifest import read_manifest as read_set_manifest
from chaku.data.rows.rendering import find_tokenizer, open_rendering
from chaku.errors import ModelError
from chaku.train import checkpoint as checkpoints
from chaku.train.base import find_base
from chaku.train.config import TrainConfig
from chaku.train.final import write_final
from chaku.train.hub_base import at_hub
from chaku.train.lineage import load_weights
from chaku.train.parallel import World
from chaku.train.parallelize import open_trainee
from chaku.weights.card import read_manifest

_ON_THIS_HOST = {
    "device": "cpu", "threads": None, "compile": False, "activation_checkpointing": "none", "attention": "auto",
}  # fmt: skip


def export_checkpoint(checkpoint: Path, output: Path) -> None:
    """Write RUN/checkpoints/step-N to the folder `output`, in plain Hugging Face form, with tokenizer and template.

    Base and set must still be where the run found them. Raises ModelError for a checkpoint that is damaged.
    """
    try:
        checkpoints.check(checkpoint)
    except checkpoints.Invalid as reason:
        raise ModelError(f"{checkpoint} is not a valid checkpoint: {reason}", fix="name another one") from None
    run = checkpoint.resolve().parent.parent
    manifest = read_manifest(run)
    recipe = {key: value for key, value in manifest["recipe"].items() if key in TrainConfig.model_fields}
    if recipe["method"] == "qlora":  # the adapter's weights are the same over a base that is not quantised
        recipe["method"] = "lora"
    config = TrainConfig.model_validate(recipe | _ON_THIS_HOST)
    base = at_hub(find_base(manifest["base"]["name"]), run)
    data = manifest["data"]
    template = read_set_manifest(Path(data["folder"]))["config"]["template"]
    world = World.alone(torch.device("cpu"))
    trainee = open_trainee(base, config, data["pack_length"], world)
    load_weights(checkpoint, trainee, world)
    rendering, tokenizer = open_rendering(data["tokenizer"], template), find_tokenizer(data["tokenizer"])
    write_final(output, trainee, base, config, rendering, tokenizer, world)
