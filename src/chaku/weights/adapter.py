"""A peft LoRA adapter on disk: what it changes in its base, tensor by tensor."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chaku.errors import ModelError
from chaku.models.files.modelconfig import read_adapter_config
from chaku.weights.place import TensorMetadata
from chaku.weights.tensors import Tensors, open_tensors

if TYPE_CHECKING:
    import torch

_EMBEDDING, _OUTPUT = "model.embed_tokens.weight", "lm_head.weight"
_LORA = re.compile(r"(?P<module>.+)\.lora_(?P<embedding>embedding_)?(?P<side>[AB])(?:\.default)?(?:\.weight)?")
# Fields of adapter_config.json that change what is computed and are not honoured here.
_REFUSED = (
    *("use_dora", "lora_bias", "fan_in_fan_out", "layer_replication", "target_parameters", "trainable_token_indices"),
    *("ensure_weight_tying", "alora_invocation_tokens", "use_qalora", "megatron_config", "arrow_config"),
)
_MOVES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class Adapter:
    """A LoRA: pairs of low-rank matrices by the weight they change, and weights that replace the base's."""

    folder: Path
    config: Mapping[str, Any]
    tensors: Tensors
    pairs: Mapping[str, tuple[str, str]]
    """A's and B's names by the name of the weight; both as (rank, in) and (out, rank)."""
    replaced: Mapping[str, str]
    """Names in the adapter by names in the base."""
    transposed: frozenset[str] = frozenset()
    """Embeddings: their pairs are stored the other way round."""

    def scale_of(self, name: str, rank: int) -> float:
        """What B·A is multiplied by for the weight `name`."""
        module = name.removesuffix(".weight")
        alpha = float(self.config.get("lora_alpha", 8))
        for pattern, alpha_of_layer in (self.config.get("alpha_pattern") or {}).items():
            if re.match(rf"(.*\.)?({pattern})$", module):
                alpha = float(alpha_of_layer)
                break
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def delta(self, name: str) -> torch.Tensor:
        """What is added to the weight `name`, in float32."""
        first, second = (self.tensors.load(side).float() for side in self.pairs[name])
        rank = first.shape[0]
        product = second @ first
        return self.scale_of(name, rank) * (product.T if name in self.transposed else product)


def read_adapter(folder: Path) -> Adapter:
    """Read an adapter's config and names. Raises ModelError for what merging would get wrong, naming the field."""
    config = read_adapter_config(folder)
    if config.get("peft_type") != "LORA":
        raise ModelError(f"{folder} is a {config.get('peft_type')} adapter, only LORA can be merged")
    for field_name in _REFUSED:
        if config.get(field_name):
            raise ModelError(f"{folder} sets {field_name}, which merging does not honour", fix="merge it with peft")
    starts = str(config.get("init_lora_weights")).lower()
    if starts.startswith(_MOVES_BASE):
        raise ModelError(
            f"{folder} was initialised by {starts}, which changes the base itself",
            fix="merge it with peft",
        )
    tensors = open_tensors(folder)
    sides: dict[str, dict[str, str]] = {}
    replaced: dict[str, str] = {}
    transposed = set()
    for stored in tensors.names:
        name = _base_name(stored)
        if match := _LORA.fullmatch(name):
            weight = f"{match['module']}.weight"
            sides.setdefault(weight, {})[match["side"]] = stored
            if match["embedding"]:
                transposed.add(weight)
        elif ".lora_" in name:
            raise ModelError(f"{folder} holds {stored}, which merging does not honour", fix="merge it with peft")
        else:
            replaced[name] = stored
    if lone := next((weight for weight, found in sides.items() if set(found) != {"A", "B"}), None):
        raise ModelError(f"{folder} has only half of the pair for {lone}", fix="fetch the adapter again")
    pairs = {weight: (found["A"], found["B"]) for weight, found in sides.items()}
    if not pairs and not replaced:
        raise ModelError(f"{folder} changes nothing")
    return Adapter(folder, config, tensors, pairs, replaced, frozenset(transposed))


def _base_name(stored: str) -> str:
    name = stored.removeprefix("base_model.model.")
    return name.replace(".modules_to_save.default.", ".").replace(".modules_to_save.", ".").replace(".base_layer.", ".")


@dataclass(frozen=True)
class MergedTensors:
    """A base's tensors with an adapter merged in; each is computed when it is loaded, in float32, and rounded once."""

    base: Tensors
    adapter: Adapter
    unties: bool
    """The base's output matrix is its embedding, and the adapter changes one of them: they part."""
    names: list[str] = field(default_factory=list)

    def metadata(self, name: str) -> TensorMetadata:
        """Shape and dtype: the base's; a replaced weight may have another number of rows."""
        base = self.base.metadata(self._base(name))
        if name in self.adapter.replaced:
            return TensorMetadata(self.adapter.tensors.metadata(self.adapter.replaced[name]).shape, base.dtype)
        return base

    def load(self, name: str) -> torch.Tensor:
        """The merged values."""
        dtype = self.metadata(name).torch_dtype
        if name in self.adapter.replaced:  # an embedding with a pair of its own may be stored beside it
            weight = self.adapter.tensors.load(self.adapter.replaced[name]).to(dtype)
        else:
            weight = self.base.load(self._base(name))
        if name not in self.adapter.pairs:
            return weight
        return (weight.float() + self.adapter.delta(name)).to(dtype)

    def _base(self, name: str) -> str:
        return _EMBEDDING if name == _OUTPUT and name not in self.base else name


def merged(base: Tensors, adapter: Adapter, *, ties_embeddings: bool) -> MergedTensors:
    """The base with the adapter merged in. Raises ModelError for an adapter of another base, naming the tensor."""
    touched = adapter.pairs.keys() | adapter.replaced.keys()
    unties = ties_embeddings and bool(touched & {_EMBEDDING, _OUTPUT})
    names = list(base.names)
    if unties and _OUTPUT not in names:
        names.append(_OUTPUT)
    for name in sorted(touched):
        if name not in names:
            raise ModelError(
                f"{adapter.folder} changes {name}, which {base.path} does not have",
                fix="give the base that it was trained on",
            )
    result = MergedTensors(base, adapter, unties, names)
    for name, (first, second) in adapter.pairs.items():
        low, high = (adapter.tensors.metadata(side).shape for side in (first, second))
        shape = (low[-1], high[0]) if name in adapter.transposed else (high[0], low[-1])
        if shape != result.metadata(name).shape or low[0] != high[-1]:
            raise ModelError(
                f"{name} is {list(result.metadata(name).shape)} in {base.path}, the adapter is for {list(shape)}",
                fix="give the base that it was trained on",
            )
    return result
