"""What a run leaves behind: a plain Hugging Face folder with weights (or adapters), tokenizer and chat template."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, cast

from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from chaku.chat.export import to_jinja
from chaku.chat.jinja import JinjaTemplate
from chaku.chat.templates import Template
from chaku.data.rows.rendering import Rendering
from chaku.models.files.modelconfig import read_optional
from chaku.models.tokenizers import tokenizer_files
from chaku.train.model import Trainee
from chaku.train.parallel import World
from chaku.train.samples import stop_ids
from chaku.weights.folder import TOKENIZER_FILES, copy_side_files, new_folder
from chaku.weights.gguf_tokenizer import TRAINED_TEMPLATE

_PREFIX = "causal."


def write_final(folder: Path, trainee: Trainee, rendering: Rendering, tokenizer_path: Path, world: World) -> None:
    """Write the folder, whole or not at all. All processes call this, one writes."""
    state = get_model_state_dict(trainee, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if world.leads:
        with new_folder(folder, overwrite=True) as part:
            _write_weights(part, trainee, {name.removeprefix(_PREFIX): value for name, value in state.items()})
            write_tokenizer(part, tokenizer_path, rendering)
    world.wait()


def _write_weights(folder: Path, trainee: Trainee, state: dict[str, Any]) -> None:
    if trainee.adapters is not None:
        wrapped = {f"base_model.model.{name}": value for name, value in state.items()}
        # "auto" looks for the base's config where it came from, be that a GGUF's folder or the hub
        trainee.adapters.save_pretrained(folder, state_dict=wrapped, save_embedding_layers=False)
        (folder / "README.md").unlink(missing_ok=True)  # peft's empty model card
        return
    trainee.causal.save_pretrained(folder, state_dict=state)


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
    settings = read_optional(folder / "generation_config.json")
    settings["eos_token_id"] = stop_ids(rendering)
    (folder / "generation_config.json").write_text(json.dumps(settings, indent=2))
    tokenizer_files.check_same(tokenizer, folder)
