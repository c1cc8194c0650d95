"""What a Hugging Face config.json means in a GGUF: architecture, names of tensors, rotary positions, lengths."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaku.errors import ModelError
from chaku.models.files.modelconfig import Dimensions, dimensions

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Family:
    """How models of one `model_type` are written."""

    architecture: str
    """llama.cpp's name."""
    interleaves: bool
    """Whether llama.cpp rotates neighbours of a head, and not its two halves: rows of q and k change their order."""


FAMILIES = {
    "llama": Family("llama", interleaves=True),
    "mistral": Family("llama", interleaves=True),
    "qwen2": Family("qwen2", interleaves=False),
    "qwen3": Family("qwen3", interleaves=False),
}

_NAMES = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)")
_DERIVED = re.compile(r".*\.rotary_emb\.inv_freq|.*\.attn\.masked_bias")


@dataclass(frozen=True)
class Architecture:
    """A config.json, checked: every field is one that the export honours."""

    family: Family
    config: Mapping[str, Any]
    sizes: Dimensions
    rope_theta: float
    rope: Mapping[str, Any]
    """Scaling of the rotary positions; empty where there is none."""
    context_length: int
    notes: tuple[str, ...] = ()

    def name_of(self, name: str) -> str | None:
        """A tensor's name in the GGUF; None for what is not written. Raises ModelError for an unknown one."""
        if _DERIVED.fullmatch(name) or (self.sizes.ties_embeddings and name == "lm_head.weight"):
            return None
        stem, _, suffix = name.rpartition(".")
        if stem in _NAMES and suffix == "weight":
            return f"{_NAMES[stem]}.weight"
        layer = _LAYER.fullmatch(name)
        if layer is None or layer[2] not in _LAYER_NAMES or int(layer[1]) >= self.sizes.num_layers:
            raise ModelError(
                f"{name} is not a tensor of a {self.config['model_type']} model with {self.sizes.num_layers} layers",
                fix="check that config.json belongs to the weights",
            )
        return f"blk.{layer[1]}.{_LAYER_NAMES[layer[2]]}.{layer[3]}"

    def heads_to_interleave(self, name: str) -> int | None:
        """How many heads the rows of this tensor (by its name in the GGUF) hold, where their order changes."""
        if not self.family.interleaves:
            return None
        part = name.split(".")[2:3]
        return {"attn_q": self.sizes.heads, "attn_k": self.sizes.kv_heads}.get(part[0]) if part else None

    def rope_factors(self) -> NDArray[np.float32] | None:
        """Llama 3's scaling as llama.cpp takes it: for each frequency, what divides it. None for other models."""
        import numpy as np

        if self.rope.get("rope_type") != "llama3":
            return None
        factor = float(self.rope["factor"])
        low, high = float(self.rope.get("low_freq_factor", 1.0)), float(self.rope.get("high_freq_factor", 4.0))
        original = float(self.rope.get("original_max_position_embeddings", 8192))
        factors = []
        for index in range(0, self.sizes.head_length, 2):
            wavelength = 2 * math.pi * self.rope_theta ** (index / self.sizes.head_length)
            turns = original / wavelength
            if turns > high:
                factors.append(1.0)
            elif turns < low:
                factors.append(factor)
            else:
                smooth = (turns - low) / (high - low)
                factors.append(1 / ((1 - smooth) / factor + smooth))
        return np.array(factors, np.float32)


def read_architecture(config: Mapping[str, Any], file: Path) -> Architecture:
    """Check the config.json `file`, parsed. Raises ModelError for what llama.cpp would compute otherwise, naming it."""
    model_type = config.get("model_type")
    if model_type not in FAMILIES:
        raise ModelError(
            f"models of type {model_type!r} can't be written as GGUF, only {', '.join(FAMILIES)}",
            fix="use llama.cpp's own converter for this model",
        )
    if config.get("quantization_config"):
        raise ModelError("the weights are quantised already", fix="start from the model in f16 or bf16")
    if (activation := config.get("hidden_act", "silu")) not in ("silu", "swish"):
        raise ModelError(f"hidden_act is {activation!r}, llama.cpp computes silu in these models")
    theta, rope = _rope(config)
    sizes = dimensions(config, file)
    context, notes = _context_length(config, rope, sizes.context or 2048)
    return Architecture(FAMILIES[model_type], config, sizes, theta, rope, context, notes)


def _rope(config: Mapping[str, Any]) -> tuple[float, Mapping[str, Any]]:
    """Base frequency, and the scaling with its kind under "rope_type"; transformers 5 has both in one place."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    theta = float(config.get("rope_theta") or given.get("rope_theta") or 10_000.0)
    if float(given.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0) != 1.0:
        raise ModelError("partial_rotary_factor is not 1, which llama.cpp does not know for these models")
    kind = given.get("rope_type") or given.get("type") or "default"
    match kind:
        case "default" | "dynamic":  # dynamic scaling changes nothing up to the length it was trained for
            return theta, {}
        case "linear" | "llama3":
            return theta, {**given, "rope_type": kind}
        case "yarn":
            for field in ("attention_factor", "mscale", "mscale_all_dim"):
                if given.get(field) is not None:
                    raise ModelError(f"rope scaling sets {field}, which the export does not carry")
            return theta, {**given, "rope_type": kind}
        case other:
            raise ModelError(f"rope scaling of type {other!r} can't be written as GGUF here")


def _context_length(config: Mapping[str, Any], rope: Mapping[str, Any], longest: int) -> tuple[int, tuple[str, ...]]:
    if rope.get("rope_type") == "yarn" and (original := rope.get("original_max_position_embeddings")):
        longest = max(longest, round(float(rope["factor"]) * int(original)))
    slides = config.get("use_sliding_window", config["model_type"] == "mistral")
    window = int(config.get("sliding_window") or longest) if slides else longest
    if window < longest:
        note = f"attention slides over {window:,} tokens, which llama.cpp ignores here: the context ends there"
        return window, (note,)
    return longest, ()


def write_architecture(writer: Any, architecture: Architecture, num_rows: int) -> None:
    """Put lengths and positions into a gguf.GGUFWriter."""
    import gguf

    config, sizes = architecture.config, architecture.sizes
    writer.add_block_count(sizes.num_layers)
    writer.add_context_length(architecture.context_length)
    writer.add_embedding_length(sizes.width)
    writer.add_feed_forward_length(sizes.feed_forward)
    writer.add_head_count(sizes.heads)
    writer.add_head_count_kv(sizes.kv_heads)
    writer.add_key_length(sizes.head_length)
    writer.add_value_length(sizes.head_length)
    writer.add_layer_norm_rms_eps(float(config.get("rms_norm_eps", 1e-6)))
    writer.add_vocab_size(num_rows)
    writer.add_rope_dimension_count(sizes.head_length)
    writer.add_rope_freq_base(architecture.rope_theta)
    kind = architecture.rope.get("rope_type")
    if kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(architecture.rope["factor"]))
    elif kind == "yarn":
        original = architecture.rope.get("original_max_position_embeddings") or config["max_position_embeddings"]
        writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
        writer.add_rope_scaling_factor(float(architecture.rope["factor"]))
        writer.add_rope_scaling_orig_ctx_len(int(original))
        for field in ("beta_fast", "beta_slow"):
            if architecture.rope.get(field) is not None:
                getattr(writer, f"add_rope_scaling_yarn_{field}")(float(architecture.rope[field]))
