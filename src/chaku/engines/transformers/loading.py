"""Loads the models of one base: itself, and each adapter as a model of its own that shares the base's weights."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from chaku.chat.tokenizer import Tokenizer
from chaku.errors import ModelError
from chaku.models.tokenizers.tokenizer import load_tokenizer


@dataclass(frozen=True)
class Loaded:
    """What one child serves."""

    models: dict[str, Any]
    """By the name that clients use; the base first."""
    tokenizer: Tokenizer
    ends: frozenset[int]
    """Ids that end an answer."""
    max_tokens: int | None
    """The trained context."""
    kv_bytes_per_token: int


def load_models(
    name: str, folder: Path, *, adapters: dict[str, str], main_adapter: str | None, dtype: str, bits: int | None
) -> Loaded:
    """Load from a Hugging Face folder. Raises ModelError, or whatever transformers and peft raise for a bad folder."""
    device = _device()
    options: dict[str, Any] = {"dtype": dtype if dtype == "auto" else getattr(torch, dtype)}
    if bits is not None:
        options["quantization_config"] = _quantization(bits)
        options["device_map"] = {"": device}
    base: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa", **options)
    if bits is None:
        base.to(device)
    base.eval()
    tokenizer = load_tokenizer(folder)
    ends = _ends(base, tokenizer)
    models = {name: _with_adapter(base, main_adapter) if main_adapter else base}
    for adapter_name, adapter in adapters.items():
        models[adapter_name] = _with_adapter(_sharing(base), adapter)
    text_config = base.config.get_text_config()
    return Loaded(models, tokenizer, ends, _trained_context(text_config), _kv_bytes(text_config, base.dtype))


def _device() -> str:
    if torch.cuda.is_available():
        return "cuda:0"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def _quantization(bits: int) -> Any:
    if bits == 8:
        return transformers.BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return transformers.BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )


def _sharing(base: Any) -> Any:
    """A second model with modules of its own and the same tensors: adapters change modules, not the base's weights."""
    tensors = (*base.parameters(), *base.buffers())
    return copy.deepcopy(base, {id(tensor): tensor for tensor in tensors})


def _with_adapter(model: Any, adapter: str) -> Any:
    """The model with a peft adapter inside its layers, as a model of transformers. `model` is changed."""
    try:
        import peft
    except ImportError:
        raise ModelError(
            f"the adapter {adapter} needs peft", fix="chaku doctor shows how to install [transformers]"
        ) from None
    wrapped = peft.PeftModel.from_pretrained(model, adapter)
    return wrapped.eval().base_model.model


def _ends(model: Any, tokenizer: Tokenizer) -> frozenset[int]:
    configured = model.generation_config.eos_token_id
    ids = configured if isinstance(configured, list) else [configured]
    return frozenset(token_id for token_id in (*ids, tokenizer.special_id(tokenizer.eos)) if token_id is not None)


def _trained_context(config: Any) -> int | None:
    trained = getattr(config, "max_position_embeddings", None)
    return trained if isinstance(trained, int) and trained > 0 else None


def _kv_bytes(config: Any, dtype: torch.dtype) -> int:
    """Bytes of keys and values per token, as if every layer had full attention."""
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    head_length = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return int(2 * config.num_hidden_layers * heads * head_length * dtype.itemsize)
