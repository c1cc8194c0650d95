"""From a folder and its settings to the transformers engine. Nothing is started here; torch is not imported."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator

from chaku import packages
from chaku.chat.export import to_jinja
from chaku.chat.templates import get_template
from chaku.config import Frozen
from chaku.engines.chat_template import stops_of
from chaku.engines.transformers.engine import Settings, TransformersEngine
from chaku.errors import ModelError
from chaku.models.fetch.folders import base_of, is_adapter, model_folder
from chaku.models.files.modelconfig import CONFIG, read_config
from chaku.models.tokenizers.tokenizer import load_tokenizer
from chaku.settings import ModelConfig
from chaku.weights.gguf_architecture import FAMILIES


class TransformersArgs(Frozen):
    """The `engine_args` of transformers."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Numbers of the weights; auto: as the folder has them."""
    bits: Literal[4, 8] | None = None
    """Quantise the weights with bitsandbytes as they are loaded."""
    batch: int = Field(256, ge=16, le=16384)
    """Tokens per step of all requests together."""
    batching: bool = True
    """Continuous batching; without it requests are answered one after the other."""

    @field_validator("bits", mode="before")
    @classmethod
    def _of_flag(cls, bits: Any) -> Any:
        """On the command line every value is text."""
        return int(bits) if isinstance(bits, str) and bits.isdecimal() else bits


def type_without_gguf(path: Path) -> str | None:
    """The model type of a folder that chaku can't convert to GGUF; None where it can, or nothing is known."""
    with contextlib.suppress(ModelError):  # said when the model is opened
        folder = model_folder(path)
        config = read_config(base_of(folder) if is_adapter(folder) else folder) or {}
        model_type = config.get("model_type")
        return model_type if isinstance(model_type, str) and model_type not in FAMILIES else None
    return None


def open_folder(
    name: str, config: ModelConfig, path: Path, threads: int | None, args: TransformersArgs
) -> TransformersEngine:
    """The engine of a Hugging Face folder, a run, or a peft adapter on such a folder.

    Raises ModelError for a folder that transformers can't load, ConfigError for an unknown template.
    """
    if args.bits is not None and packages.version("bitsandbytes") is None:
        fix = packages.install_command("transformers")
        raise ModelError(f"{name}: {args.bits} bits need bitsandbytes, which is not installed", fix=fix)
    folder = model_folder(path)
    main_adapter = folder if is_adapter(folder) else None
    base = base_of(folder) if main_adapter else folder
    if not (base / CONFIG).is_file():
        raise ModelError(f"transformers can't load {base}: it is no Hugging Face folder", fix="use the engine llamacpp")
    template = get_template(config.template) if config.template else None
    tokenizer = load_tokenizer(base)
    return TransformersEngine(
        name,
        Settings(
            base,
            main_adapter,
            adapters=dict(config.adapters),
            template=to_jinja(template, bos=tokenizer.adds_bos) if template else tokenizer.chat_template,
            stops=stops_of(template) if template else (),
            context=config.context,
            slots=config.slots or 32,
            threads=threads,
            spin=config.spin,
            dtype=args.dtype,
            bits=args.bits,
            batch=args.batch,
            batching=args.batching,
            idle_unload_s=config.idle_unload_s,
        ),
    )
