"""The model that learns: from a hub id, a folder or a GGUF, with adapters where asked, and its loss inside it."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from chaku.errors import ModelError, UsageError
from chaku.train.attention import VARLEN, document_borders, document_mask, register_varlen
from chaku.train.batches import MicroBatch
from chaku.train.config import TrainConfig
from chaku.train.loss import summed_cross_entropy
from chaku.weights.local_paths import hub_id_of

_CHANGES_LOGITS = ("final_logit_softcapping", "logit_scale", "logits_scaling")


@dataclass(frozen=True)
class Base:
    """Where a base model lies: a folder, a GGUF file, or an id of the hub, which `hub_base.at_hub` makes a folder."""

    name: str
    path: Path | None
    sha256: str | None = None
    licence: str | None = None
    licence_url: str | None = None
    hub_id: str | None = None
    revision: str | None = None
    """The commit of a repository on the hub."""

    @property
    def is_gguf(self) -> bool:
        """One GGUF file."""
        return self.path is not None and self.path.is_file()


def find_base(name: str) -> Base:
    """A built-in name, a path, or a hub id (also ORG/NAME@REVISION). Nothing is fetched. Raises ModelError."""
    from chaku.models import cache
    from chaku.models.reference import BuiltIn
    from chaku.models.registry import BUILT_IN

    path = Path(name).expanduser()
    if path.is_dir() or path.suffix == ".gguf":
        if not path.exists():
            raise ModelError(f"no base model at {path}", fix="check `base` in the recipe")
        return Base(name, path, hub_id=hub_id_of(str(path.absolute())))
    if name in BUILT_IN:
        pulled = cache.find(BuiltIn(BUILT_IN[name]))
        if pulled is None:
            raise ModelError(f"the base model {name} is not here", fix=f"chaku pull {name}")
        row = BUILT_IN[name]
        return Base(name, pulled.path, pulled.sha256, row.licence.name, row.licence.url, row.hub_id)
    hub_id, _, revision = name.partition("@")
    if hub_id.count("/") != 1 or name.startswith((".", "/")):
        raise ModelError(f"base {name!r} is no folder, GGUF, built-in name or hub id", fix="check `base` in the recipe")
    return Base(name, None, hub_id=hub_id, revision=revision or None)


class Trainee(nn.Module):
    """A causal language model with its loss: one forward gives the sum over supervised tokens.

    The head and the loss are inside, so that a sharding root gathers the head's weight for them.
    """

    adapters: Any
    """peft's view of the same modules, or None."""

    def __init__(self, causal: nn.Module, *, varlen: bool = False, chunk_tokens: int = 0, adapters: Any = None) -> None:
        super().__init__()
        self.causal: Any = causal
        self.varlen = varlen
        self.chunk_tokens = chunk_tokens
        object.__setattr__(self, "adapters", adapters)  # peft's view of the same modules, not one more child
        self.autocast_to: torch.dtype | None = None

    def train(self, mode: bool = True) -> Trainee:
        """As for any module; but 4-bit layers stay as they are: for inference on CPU bitsandbytes packs them anew."""
        super().train(mode)
        for module in self.modules():
            if type(module).__name__ == "Linear4bit":
                module.training = True
        return self

    def forward(self, ids: Tensor, positions: Tensor, documents: Tensor, targets: Tensor) -> Tensor:
        """Sum of the token losses of one micro-batch."""
        return summed_cross_entropy(
            self.hidden(ids, positions, documents), self.causal.lm_head, targets, self.chunk_tokens
        )

    def hidden(self, ids: Tensor, positions: Tensor, documents: Tensor) -> Tensor:
        """What the head sees, [rows, length, width]; every document by itself."""
        sight: dict[str, Any] = {"attention_mask": document_mask(documents)}
        if self.varlen:
            sight = {"cu_seqlens": document_borders(documents), "max_length": ids.shape[1]}
        out = self.causal.model(input_ids=ids, position_ids=positions, use_cache=False, **sight)
        states: Tensor = out.last_hidden_state
        return states

    def summed_loss(self, batch: MicroBatch) -> Tensor:
        """Forward under the run's precision."""
        device = batch.ids.device.type
        context = torch.autocast(device, self.autocast_to) if self.autocast_to else contextlib.nullcontext()
        with context:
            loss: Tensor = self(batch.ids, batch.positions, batch.documents, batch.targets)
        return loss


def open_trainee(base: Base, config: TrainConfig, row_length: int, device: torch.device) -> Trainee:
    """Load a base into host memory and make it ready to learn on `device`. Raises ModelError or UsageError."""
    varlen = config.attention == "varlen" or (config.attention == "auto" and device.type == "cuda")
    if varlen and device.type != "cuda":
        raise UsageError("attention: varlen has no CPU kernel", fix="say attention: sdpa, or auto")
    if varlen:
        register_varlen()
    causal = _load(base, config, row_length, VARLEN if varlen else "sdpa")
    return make_trainee(causal, config, varlen=varlen)


def make_trainee(causal: Any, config: TrainConfig, *, varlen: bool = False) -> Trainee:
    """A loaded model as a trainee: adapters, what learns in fp32, activation checkpointing, compilation."""
    adapters = None
    if config.method != "full":
        adapters = _add_adapters(causal, config)
        causal = adapters.get_base_model()
    for parameter in causal.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    causal.train()
    _checkpoint_activations(causal, config)
    if config.compile:
        for layer in causal.model.layers:
            layer.compile()
    trainee = Trainee(causal, varlen=varlen, chunk_tokens=config.loss_chunk_tokens, adapters=adapters)
    if config.precision == "bf16":
        trainee.autocast_to = torch.bfloat16
    return trainee


def _load(base: Base, config: TrainConfig, row_length: int, attention: str) -> Any:
    from transformers import AutoConfig, AutoModelForCausalLM, GgufConfig
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    where: dict[str, Any] = {"pretrained_model_name_or_path": base.name if base.path is None else str(base.path)}
    if base.is_gguf:
        assert base.path is not None
        where = {"pretrained_model_name_or_path": str(base.path.parent), "gguf_file": base.path.name}
    options: dict[str, Any] = {"attn_implementation": attention, "dtype": torch.float32}
    if config.method == "lora" and config.precision == "bf16":
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
    factor = float(math.ceil(row_length / trained))
    settings.rope_parameters = {**(settings.rope_parameters or {}), "rope_type": "linear", "factor": factor}
    settings.max_position_embeddings = int(trained * factor)


def _four_bits(config: TrainConfig) -> Any:
    from transformers import BitsAndBytesConfig

    compute = torch.bfloat16 if config.precision == "bf16" else torch.float32
    return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )


def _add_adapters(causal: Any, config: TrainConfig) -> Any:
    import peft

    if "lm_head" in config.lora.targets:
        raise UsageError("lora.targets names lm_head, which stays as it is here", fix="leave it out")
    torch.manual_seed(config.seed)
    settings = peft.LoraConfig(
        r=config.lora.rank, lora_alpha=config.lora.alpha, lora_dropout=config.lora.dropout, bias="none",
        target_modules=list(config.lora.targets), task_type="CAUSAL_LM",
    )  # fmt: skip
    try:
        with warnings.catch_warnings():  # peft asks under a name that transformers 5.24 has retired
            warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing", category=FutureWarning)
            return peft.get_peft_model(causal, settings)
    except ValueError as error:
        raise UsageError(f"lora.targets: {str(error).splitlines()[0]}", fix="name linear layers of the base") from None


def _checkpoint_activations(causal: Any, config: TrainConfig) -> None:
    if config.activation_checkpointing == "none":
        return
    options: dict[str, Any] = {"use_reentrant": False}
    if config.activation_checkpointing == "selective":
        options["context_fn"] = _save_matmuls
    if hasattr(causal, "activation_checkpointing_enable"):
        causal.activation_checkpointing_enable(options)
    else:  # before transformers 5.24
        causal.gradient_checkpointing_enable(gradient_checkpointing_kwargs=options)
    causal.enable_input_require_grads()


def _save_matmuls() -> Any:
    """Keep what is dear to compute (matrix products, attention), compute the rest again."""
    from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

    aten = torch.ops.aten
    dear = {aten.mm.default, aten.addmm.default, aten.bmm.default, aten._scaled_dot_product_flash_attention.default,
            aten._scaled_dot_product_flash_attention_for_cpu.default,
            aten._scaled_dot_product_efficient_attention.default}  # fmt: skip

    def policy(_context: Any, operation: Any, *_args: Any, **_options: Any) -> CheckpointPolicy:
        return CheckpointPolicy.MUST_SAVE if operation in dear else CheckpointPolicy.PREFER_RECOMPUTE

    return create_selective_checkpoint_contexts(policy)  # type: ignore[no-untyped-call]
