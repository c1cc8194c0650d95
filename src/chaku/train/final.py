"""What a run leaves behind: a plain Hugging Face folder with weights (or adapters), tokenizer and chat template."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from chaku.chat.export import to_jinja
from chaku.chat.jinja import JinjaTemplate
from chaku.chat.templates import Template
from chaku.data.rows.rendering import Rendering
from chaku.models.files.modelconfig import read_config, read_optional, write_config
from chaku.models.recommended import GENERATION_CONFIG, write_recommended
from chaku.models.registry import Recommended, recommended
from chaku.models.tokenizers import tokenizer_files
from chaku.train.base import Base
from chaku.train.config import TrainConfig
from chaku.train.model import Trainee
from chaku.train.parallel import World
from chaku.weights.folder import TOKENIZER_FILES, copy_side_files, new_folder
from chaku.weights.gguf_tokenizer import TRAINED_TEMPLATE

_PREFIX = "causal."


def write_final(
    folder: Path, trainee: Trainee, base: Base, config: TrainConfig, rendering: Rendering, tokenizer_path: Path,
    world: World,
) -> None:  # fmt: skip
    """Write the folder, whole or not at all. All processes call this, rank zero writes."""
    is_adapter = trainee.adapters is not None
    options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=is_adapter)
    state = get_model_state_dict(trainee, options=options)
    if world.is_rank_zero:
        with new_folder(folder, overwrite=True) as part:
            named = {name.removeprefix(_PREFIX): value for name, value in state.items()}
            _write_weights(part, trainee, base, final_dtype(config), named)
            write_tokenizer(part, tokenizer_path, rendering)
            settings = read_optional(part / GENERATION_CONFIG) | {"eos_token_id": sorted(rendering.renderer.stop_ids)}
            write_recommended(part, recommended(base.name) or Recommended(), settings)
    world.barrier()


def final_dtype(config: TrainConfig) -> str | None:
    """The dtype of the weights in final/, by its name in torch; None for adapters, which stay fp32 unless asked."""
    if config.final_dtype is None and config.method != "full":
        return None
    return {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}[config.final_dtype or config.precision]


def _write_weights(folder: Path, trainee: Trainee, base: Base, dtype: str | None, state: dict[str, Any]) -> None:
    if dtype is not None:
        wanted = getattr(torch, dtype)
        state = {name: value.to(wanted) if value.is_floating_point() else value for name, value in state.items()}
    if trainee.adapters is not None:
        trainee.adapters.peft_config["default"].base_model_name_or_path = _base_name(base)
        wrapped = {f"base_model.model.{name}": value for name, value in state.items()}
        # "auto" looks for the base's config where it came from, be that a GGUF's folder or the hub
        trainee.adapters.save_pretrained(folder, state_dict=wrapped, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        return
    trainee.causal.save_pretrained(folder, state_dict=state)
    if dtype is not None and (config := read_config(folder)) is not None:
        write_config(folder, config | {"dtype": dtype})


def _base_name(base: Base) -> str:
    """How an adapter names its base: by an absolute path where it is a folder here, so that it opens from anywhere."""
    if base.path is None or base.revision is not None:
        return base.hub_id or base.name
    folder = base.path.parent if base.is_gguf else base.path
    return str(folder.absolute())


def write_tokenizer(folder: Path, source: Path, rendering: Rendering) -> None:
    """Tokenizer files and chat template into a folder. Raises ModelError unless they say the same as the set's."""
    if source.suffix == ".gguf":
        tokenizer_files.write_tokenizer(folder, source)
    else:
        copy_side_files(source if source.is_dir() else source.parent, folder, names=TOKENIZER_FILES)
    template, tokenizer = rendering.template, rendering.tokenizer
    text = template.source if isinstance(template, JinjaTemplate) else None
    text = text or to_jinja(cast(Template, template), bos=tokenizer.adds_bos)
    (folder / "chat_template.jinja").write_text(text, encoding="utf-8")
    config = read_optional(folder / "tokenizer_config.json")
    config.pop("chat_template", None)
    written = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    config[TRAINED_TEMPLATE] = hashlib.sha256(written.encode()).hexdigest()
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False), encoding="utf-8")
    tokenizer_files.check_same(tokenizer, folder)
