"""A causal language model of transformers, from where its weights lie, or in shape only."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import torch

from chaku.errors import ModelError, UsageError
from chaku.train.base import Base
from chaku.train.config import TrainConfig

_CHANGES_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


def read_causal(base: Base, config: TrainConfig, row_length: int, attention: str) -> Any:
    """Load a base into host memory, able to attend over rows of `row_length`. Raises ModelError or UsageError."""
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    where: dict[str, Any] = {"pretrained_model_name_or_path": base.name if base.path is None else str(base.path)}
    if base.is_gguf:
        assert base.path is not None
        where = {"pretrained_model_name_or_path": str(base.path.parent), "gguf_file": base.path.name}
    options: dict[str, Any] = {"attn_implementation": attention, "dtype": torch.float32}
    if config.method != "full" and config.precision == "bf16":
        options["dtype"] = torch.bfloat16  # frozen; what learns is made fp32
    try:
        settings = AutoConfig.from_pretrained(**where)
        _reach(settings, config, row_length, base.name)
        if base.is_gguf:
            if config.method == "qlora":
                raise UsageError(
                    "qlora quantises a safetensors base, not a GGUF", fix="say method: lora, or name a folder"
                )
            options["quantization_config"] = GgufConfig(dequantize=True)
        elif config.method == "qlora":
            options["quantization_config"] = _four_bits(config)
        with contextlib.redirect_stderr(io.StringIO()):  # a bar that reading a GGUF draws whatever one says
            opened: Any = AutoModelForCausalLM.from_pretrained(
                **where, config=settings, output_loading_info=True, **options
            )
        causal, found = opened
    except (OSError, ValueError) as error:
        raise ModelError(f"base {base.name} can't be opened: {str(error).splitlines()[0]}") from error
    if missing := sorted(found["missing_keys"]):
        raise ModelError(f"base {base.name} lacks {len(missing)} tensors: {missing[0]} ...", fix="fetch it again")
    if not hasattr(causal, "lm_head") or not hasattr(getattr(causal, "model", None), "layers"):
        raise ModelError(f"base {base.name} is a {type(causal).__name__}, not of the Llama family")
    if changed := [name for name in _CHANGES_LOGITS if getattr(causal.config, name, None) not in (None, 1, 1.0)]:
        raise ModelError(f"base {base.name} changes its logits ({changed[0]}), which the loss here does not know")
    return causal


def _reach(settings: Any, config: TrainConfig, row_length: int, name: str) -> None:
    """Positions must reach over a row. Mutates `settings` where rope_scaling is asked for."""
    trained = settings.max_position_embeddings
    if row_length <= trained:
        return
    if config.rope_scaling is None:
        raise UsageError(
            f"rows have {row_length:,} tokens, base {name} was trained for {trained:,}",
            fix="build the set with a smaller context, or say train.rope_scaling: linear",
        )
    rope = dict(settings.rope_parameters or {})
    kind = rope.get("rope_type", "default")
    if kind not in ("default", "linear"):
        raise UsageError(
            f"base {name} scales its positions by {kind} already, and train.rope_scaling says linear",
            fix=f"build the set with a context of at most {trained:,}, or take a base without scaling",
            param="train.rope_scaling",
        )
    factor = float(math.ceil(row_length / trained))
    already = float(rope.get("factor", 1.0)) if kind == "linear" else 1.0
    settings.rope_parameters = {**rope, "rope_type": "linear", "factor": already * factor}
    settings.max_position_embeddings = int(trained * factor)


def _four_bits(config: TrainConfig) -> Any:
    from transformers import BitsAndBytesConfig

    compute = torch.bfloat16 if config.precision == "bf16" else torch.float32
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )


def causal_in_shape(settings: Any, attention: str) -> Any:
    """The model that `settings`, of one that was read, describe: parameters and buffers have shapes, no numbers."""
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            settings, attn_implementation=attention, dtype=torch.float32
        )
