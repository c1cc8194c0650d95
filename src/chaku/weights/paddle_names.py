"""What PaddleNLP calls a Llama's tensors, and which way round they lie there: its Linear weights are (in, out).

https://github.com/PaddlePaddle/PaddleNLP, `_get_name_mappings` in paddlenlp/transformers/llama/modeling.py and others.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from chaku.errors import ModelError
from chaku.weights.pdparams import pdparams_places
from chaku.weights.place import Place, TensorMetadata

PREFIXES = {"llama": "llama.", "mistral": "mistral.", "qwen2": "qwen2."}
"""model_type: what stands there where transformers has `model.`"""

HEAD = "lm_head.weight"
_OURS = "model."
_LINEAR = tuple(f".{name}_proj.weight" for name in ("q", "k", "v", "o", "gate", "up", "down"))
_PLAIN = ("embed_tokens.weight", "norm.weight", "layernorm.weight", "_proj.bias", ".rotary_emb.inv_freq")


def is_linear(name: str) -> bool:
    """Whether a tensor of either name is a Linear weight. Raises ModelError for a tensor no Llama has."""
    if name.endswith((*_LINEAR, HEAD)):
        return True
    if not name.endswith(_PLAIN):
        raise ModelError(
            f"{name} is not a tensor of a Llama, Mistral or Qwen2, and may have to be transposed",
            fix="only these architectures are known in PaddleNLP's layout",
        )
    return False


def to_paddle_name(name: str, model_type: str) -> str:
    """PaddleNLP's name of one of transformers' tensors."""
    return PREFIXES[model_type] + name.removeprefix(_OURS) if name.startswith(_OURS) else name


def turned(metadata: TensorMetadata) -> TensorMetadata:
    """A matrix's metadata once it is transposed."""
    return TensorMetadata(metadata.shape[::-1], metadata.dtype)


def paddle_places(path: Path) -> dict[str, Place]:
    """The tensors of a `.pdparams` under transformers' names, Linear weights transposed as they are read."""
    return {_from_paddle_name(name): _turn(name, place) for name, place in pdparams_places(path).items()}


def _from_paddle_name(name: str) -> str:
    prefix = next((prefix for prefix in PREFIXES.values() if name.startswith(prefix)), "")
    return _OURS + name.removeprefix(prefix) if prefix else name


def _turn(name: str, place: Place) -> Place:
    if not is_linear(name):
        return place
    shape = place.metadata.shape
    if len(shape) != 2:
        raise ModelError(f"{place.file}: {name} is {list(shape)}, not a matrix")
    strides = place.strides or (shape[1], 1)
    return dataclasses.replace(place, metadata=turned(place.metadata), strides=strides[::-1])
