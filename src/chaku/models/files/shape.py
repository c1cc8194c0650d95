"""The numbers of a model that plans and estimates need: of a GGUF, a Hugging Face folder or its config.json."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from chaku.errors import ModelError
from chaku.models.files.gguf import GgufMetadata
from chaku.models.files.modelconfig import CONFIG, count, dimensions, require_config
from chaku.models.files.safetensors_header import read_header

_COUNTED = ("llama", "mistral", "qwen2", "qwen3")
"""Families whose parameters follow from their config.json alone."""


@dataclass(frozen=True)
class ModelShape:
    """One model's numbers. `context` is the trained one; None: nobody says."""

    name: str
    num_parameters: int
    num_layers: int
    width: int
    heads: int
    kv_heads: int
    feed_forward: int
    vocab_size: int
    context: int | None
    kv_numbers_per_token: int
    """Keys and values of one token over all layers."""
    tied: bool = False
    """Whether output and input embeddings are one matrix."""
    dtype: str | None = None
    """How the weights are stored: "bf16", "f16", "f32"; None: not said."""
    file_bytes: int | None = None
    """Of a GGUF, whose weights stay as they are."""
    quantisation: str | None = None
    """Of a GGUF."""

    @property
    def kv_width(self) -> int:
        """Numbers of one token's keys in one layer; its values are as many."""
        return self.kv_numbers_per_token // (2 * self.num_layers)

    @property
    def embedding_parameters(self) -> int:
        """Of the input embeddings, and of the output's where they are apart."""
        return self.vocab_size * self.width * (1 if self.tied else 2)


def llama_shape(
    name: str,
    *,
    num_layers: int,
    width: int,
    heads: int,
    feed_forward: int,
    vocab_size: int,
    context: int | None,
    kv_heads: int | None = None,
    head_length: int | None = None,
    tied: bool = False,
    dtype: str | None = None,
    biases: bool = False,
    head_norms: bool = False,
) -> ModelShape:
    """A Llama with its parameters counted. `biases`: of queries, keys and values; `head_norms`: of queries and keys."""
    kv_heads = kv_heads or heads
    length = head_length or width // heads
    layer = 2 * width * heads * length + 2 * width * kv_heads * length + 3 * width * feed_forward + 2 * width
    layer += (heads + 2 * kv_heads) * length * biases + 2 * length * head_norms
    return ModelShape(
        name=name,
        num_parameters=vocab_size * width * (1 if tied else 2) + num_layers * layer + width,
        num_layers=num_layers,
        width=width,
        heads=heads,
        kv_heads=kv_heads,
        feed_forward=feed_forward,
        vocab_size=vocab_size,
        context=context,
        kv_numbers_per_token=2 * num_layers * kv_heads * length,
        tied=tied,
        dtype=dtype,
    )


def shape_of_gguf(metadata: GgufMetadata) -> ModelShape:
    """What a GGUF says; its weights keep their size."""
    return ModelShape(
        name=metadata.path.stem,
        num_parameters=metadata.num_parameters,
        num_layers=metadata.num_layers,
        width=metadata.embedding_length,
        heads=metadata.head_count,
        kv_heads=max(metadata.head_count_kv, default=metadata.head_count),
        feed_forward=metadata.feed_forward_length or 4 * metadata.embedding_length,
        vocab_size=metadata.vocab_size,
        context=metadata.context_length,
        kv_numbers_per_token=sum(metadata.head_count_kv) * (metadata.key_length + metadata.value_length),
        file_bytes=metadata.weights_bytes,
        quantisation=metadata.quantisation,
    )


def shape_of_folder(path: Path) -> ModelShape:
    """What a Hugging Face folder, or a config.json alone, says. Raises ModelError where that is not enough.

    The parameters are counted in the headers of its .safetensors files where there are any, otherwise from the config.
    """
    file = path / CONFIG if path.is_dir() else path
    config = require_config(file)
    counted = sum(_parameters(weights) for weights in sorted(file.parent.glob("*.safetensors"))) if path.is_dir() else 0
    return shape_of_config(config, name=_name_of(file), file=file, num_parameters=counted or None)


def shape_of_config(
    config: Mapping[str, Any], *, name: str, file: Path, num_parameters: int | None = None
) -> ModelShape:
    """The shape that a parsed config.json describes. Raises ModelError naming the key that is missing or wrong."""
    kind = config.get("model_type")
    experts = any(key in config for key in ("num_local_experts", "num_experts", "n_routed_experts"))
    if num_parameters is None and (kind not in _COUNTED or experts):
        raise ModelError(
            f"{file} is of type {kind!r}, whose parameters are not counted from the config alone",
            fix=f"put its .safetensors files beside it, or give one of {', '.join(_COUNTED)}",
        )
    found = dimensions(config, file)
    shape = llama_shape(
        name,
        num_layers=found.num_layers,
        width=found.width,
        heads=found.heads,
        kv_heads=found.kv_heads,
        head_length=found.head_length,
        feed_forward=found.feed_forward,
        vocab_size=count(config, "vocab_size", file),
        context=found.context,
        tied=found.ties_embeddings,
        dtype=_DTYPES.get(str(config.get("dtype") or config.get("torch_dtype"))),
        biases=kind == "qwen2" or bool(config.get("attention_bias")),
        head_norms=kind == "qwen3",
    )
    if num_parameters is None:
        return shape
    return ModelShape(**{**shape.__dict__, "num_parameters": num_parameters})


_DTYPES = {"bfloat16": "bf16", "float16": "f16", "float32": "f32"}


def _name_of(file: Path) -> str:
    return file.resolve().parent.name if file.name == CONFIG else file.stem


def _parameters(file: Path) -> int:
    """Numbers in a .safetensors file, by its header."""
    try:
        return sum(math.prod(entry["shape"]) for entry in read_header(file).entries.values())
    except (KeyError, TypeError) as error:
        raise ModelError(f"{file} has no readable safetensors header ({error})", fix="fetch it again") from None
