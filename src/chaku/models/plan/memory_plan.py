"""How much memory a model takes with so many slots of so much context, and how many to take when nobody says.

Arithmetic only. Checked against llama.cpp (b11549, SmolLM2-135M): key-value cache 22.5 KiB per token, exact; compute
buffer 102.7 MiB with embeddings on, 107 MB here. The cache is touched whole at start, 0.55 GB/s on two cores: 65,536
tokens take 1.5 GB and 3.5 s.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Literal

from chaku.errors import ModelError
from chaku.models.files.gguf import GgufMetadata

MAX_CACHE_BYTES = 3 << 29
"""1.5 GiB: what the cache takes at most unless --context or --slots ask for more; seconds of start-up, see above."""
CACHE_SHARE = 3
"""The cache takes at most one part in so many of what is free beside the weights, unless asked."""
MAX_DEFAULT_SLOTS = 32
"""Measured: 32 slots give 32 clients 183 tokens/s and 2.9 s to the first; 8 slots 148 tokens/s and 10 s."""
_LEAST_CONTEXT, _MOST_LEAST_CONTEXT = 2048, 4096
_UNKNOWN_CONTEXT = 4096
_CONTEXT_STEP = 256  # llama.cpp rounds a slot's context up to a multiple of this
KvType = Literal["f16", "q8_0"]
_BYTES_OF_32_NUMBERS: dict[KvType, int] = {"f16": 64, "q8_0": 34}
_BATCH_TOKENS = 512  # llama.cpp's n_ubatch
_PROCESS_BYTES = 64 << 20  # interpreter and libraries of the engine's process
_EMBEDDED_TOKENS, _EMBEDDING_SLOTS = 2048, 2  # of the process for embeddings; it maps the same weights


@dataclass(frozen=True)
class MemoryPlan:
    """What serving a model will take. Sizes in bytes of main memory; layers on a GPU take theirs from there instead."""

    model: str
    context_per_slot: int
    """Tokens one request may use, prompt and answer together."""
    slots: int
    trained_context: int | None
    kv_bytes_per_token: int
    weights_bytes: int
    compute_bytes: int
    available_bytes: int | None
    """None: unknown, and then everything is taken to fit."""
    gpu_available_bytes: int = 0
    """Free on the GPUs that the engine can use."""
    gpu_layers: int = 0
    """Layers that lie on GPUs, the output layer counted as one."""
    num_layers: int = 1
    """All layers, the output layer counted as one."""
    embedding_bytes: int = 0
    """What the process for embeddings takes beside the weights, which both map."""
    notes: tuple[str, ...] = ()

    @property
    def total_context(self) -> int:
        """All slots together, as llama.cpp's n_ctx wants it: each slot rounded up to 256 tokens."""
        return _round_up(self.context_per_slot) * self.slots

    @property
    def total_kv_bytes(self) -> int:
        """The key-value cache of all slots."""
        return self.total_context * self.kv_bytes_per_token

    @property
    def gpu_bytes(self) -> int:
        """What lies on GPUs: the weights and the cache of their layers, and the compute buffers."""
        if not self.gpu_layers:
            return 0
        return (self.weights_bytes + self.total_kv_bytes) * self.gpu_layers // self.num_layers + self.compute_bytes

    @property
    def total_bytes(self) -> int:
        """Main memory that the engine's processes take."""
        everything = self.weights_bytes + self.total_kv_bytes + self.compute_bytes + self.embedding_bytes
        if not self.gpu_layers:
            return everything
        beside_gpu = _PROCESS_BYTES if self.gpu_layers == self.num_layers else self.compute_bytes
        return everything - self.gpu_bytes + beside_gpu

    @property
    def fits(self) -> bool:
        """Whether it is less than what is available, in main memory and on the GPUs."""
        in_memory = self.available_bytes is None or self.total_bytes <= self.available_bytes
        return in_memory and self.gpu_bytes <= self.gpu_available_bytes

    def describe(self) -> str:
        """One line for a person: what a request really gets, and what it takes."""
        trained = f" (trained for {self.trained_context:,})" if self.trained_context else ""
        available = f" of {gigabytes(self.available_bytes)} available" if self.available_bytes is not None else ""
        return (
            f"{slots_of_tokens(self)}{trained}; "
            f"cache {gigabytes(self.total_kv_bytes)}, in all {gigabytes(self.total_bytes)}{available}{self._on_gpu()}"
        )

    def _on_gpu(self) -> str:
        if not self.gpu_layers:
            return ""
        of = f"{gigabytes(self.gpu_bytes)} of {gigabytes(self.gpu_available_bytes)}"
        return f"; {self.gpu_layers} of {self.num_layers} layers on GPU, {of}"


def kv_bytes_per_token(metadata: GgufMetadata, kv_type: KvType = "f16") -> int:
    """Keys and values of one token in all layers; an upper bound where layers look only at a sliding window."""
    num_numbers = sum(metadata.head_count_kv) * (metadata.key_length + metadata.value_length)
    return num_numbers * _BYTES_OF_32_NUMBERS[kv_type] // 32


def compute_bytes(metadata: GgufMetadata, slots: int) -> int:
    """Buffers for one batch's logits and activations, each slot's logits, and the process itself. An estimate."""
    width = 4 * metadata.embedding_length + (metadata.feed_forward_length or 4 * metadata.embedding_length)
    return 4 * (_BATCH_TOKENS * (metadata.vocab_size + width) + slots * metadata.vocab_size) + _PROCESS_BYTES


def embedding_bytes(metadata: GgufMetadata, kv_type: KvType = "f16") -> int:
    """Cache, activations of one batch (no logits) and the process of the engine's child for embeddings. An estimate."""
    width = 4 * metadata.embedding_length + (metadata.feed_forward_length or 4 * metadata.embedding_length)
    cache = _EMBEDDING_SLOTS * _EMBEDDED_TOKENS * kv_bytes_per_token(metadata, kv_type)
    return cache + 4 * _EMBEDDED_TOKENS * width + _PROCESS_BYTES


def plan(
    metadata: GgufMetadata,
    context: int | None = None,
    slots: int | None = None,
    *,
    available_bytes: int | None,
    kv_type: KvType = "f16",
    embeddings: bool = False,
    gpu_available_bytes: int = 0,
    gpu_layers: int | None = None,
) -> MemoryPlan:
    """Fill in what is not given. Says nothing about fitting: see `MemoryPlan.fits` and `require_fit`.

    By default: as many slots, up to 32, as leave each a quarter of the trained context (between 2,048 and 4,096 tokens,
    never more than the trained one); what is left over goes to longer contexts.
    """
    trained = metadata.context_length
    per_token = kv_bytes_per_token(metadata, kv_type)
    beside = embedding_bytes(metadata, kv_type) if embeddings else 0
    usable = gpu_available_bytes if gpu_layers != 0 else 0
    left = None if available_bytes is None else available_bytes + usable - beside
    budget = _default_cache_tokens(metadata, per_token, left)
    longest = trained or _UNKNOWN_CONTEXT
    if slots is None:
        wanted = context or min(longest, max(_LEAST_CONTEXT, min(longest // 4, _MOST_LEAST_CONTEXT)))
        slots = max(1, min(budget // _round_up(wanted), MAX_DEFAULT_SLOTS))
    if context is None:
        context = min(longest, max(_CONTEXT_STEP, budget // slots // _CONTEXT_STEP * _CONTEXT_STEP))
    notes = []
    if trained is None:
        notes.append("the file does not say for which context it was trained")
    elif context > trained:
        notes.append(f"trained for {trained:,} tokens: answers get worse beyond that")
    if metadata.sliding_window and per_token:
        notes.append(f"layers with a window of {metadata.sliding_window:,} tokens take less cache than planned")
    whole = MemoryPlan(
        model=metadata.path.stem,
        context_per_slot=context,
        slots=slots,
        trained_context=trained,
        kv_bytes_per_token=per_token,
        weights_bytes=metadata.file_bytes,
        compute_bytes=compute_bytes(metadata, slots),
        available_bytes=available_bytes,
        embedding_bytes=beside,
        gpu_available_bytes=usable,
        num_layers=len(metadata.head_count_kv) + 1,
        notes=tuple(notes),
    )
    return dataclasses.replace(whole, gpu_layers=_gpu_layers(whole, gpu_layers))


def _gpu_layers(plan: MemoryPlan, wanted: int | None) -> int:
    """As many layers as wanted; by default as many as fit. None at all without a GPU."""
    if not plan.gpu_available_bytes:
        return 0
    if wanted is not None:
        return min(wanted, plan.num_layers)
    per_layer = max(1, (plan.weights_bytes + plan.total_kv_bytes) // plan.num_layers)
    return min(plan.num_layers, max(0, plan.gpu_available_bytes - plan.compute_bytes) // per_layer)


def _default_cache_tokens(metadata: GgufMetadata, per_token: int, available_bytes: int | None) -> int:
    budget_bytes = MAX_CACHE_BYTES
    if available_bytes is not None:
        free_bytes = available_bytes - metadata.file_bytes - compute_bytes(metadata, MAX_DEFAULT_SLOTS)
        budget_bytes = max(0, min(budget_bytes, free_bytes // CACHE_SHARE))
    return budget_bytes // max(per_token, 1)


def require_fit(plan: MemoryPlan) -> None:
    """Raise ModelError when there is too little memory, with settings that would fit."""
    if plan.fits:
        return
    if plan.gpu_bytes > plan.gpu_available_bytes:
        raise ModelError(
            f"{plan.gpu_layers} layers of {plan.model} need {gigabytes(plan.gpu_bytes)} on the GPU, "
            f"{gigabytes(plan.gpu_available_bytes)} are free",
            fix="lower --gpu-layers, or leave it out: then as many layers as fit go there",
        )
    available = plan.available_bytes or 0
    what = f"{plan.model} with {slots_of_tokens(plan)}"
    room = available - (plan.total_bytes - plan.total_kv_bytes)
    tokens = max(room, 0) // max(plan.kv_bytes_per_token, 1)
    longest = plan.trained_context or plan.context_per_slot  # advice that would be refused next is none
    fewer_slots = tokens // _round_up(plan.context_per_slot) if plan.context_per_slot <= longest else 0
    shorter = min(tokens // plan.slots, longest) // _CONTEXT_STEP * _CONTEXT_STEP
    fitting = [f"--slots {fewer_slots}"] * (fewer_slots > 0) + [f"--context {shorter}"] * (shorter > 0)
    if not fitting and tokens >= _CONTEXT_STEP:
        fitting = [f"--slots 1 --context {min(tokens, longest) // _CONTEXT_STEP * _CONTEXT_STEP}"]
    raise ModelError(
        f"{what} needs {gigabytes(plan.total_bytes)}, {gigabytes(available)} are available",
        fix=f"{' or '.join(fitting)} would fit" if fitting else "free some memory, or take a smaller model",
    )


def slots_of_tokens(plan: MemoryPlan) -> str:
    """Such as "32 slots of 2,048 tokens"."""
    return f"{plan.slots} slot{'s' * (plan.slots != 1)} of {plan.context_per_slot:,} tokens"


def gigabytes(num_bytes: int) -> str:
    """A size for people, decimal: 1.51 GB, 230 MB."""
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e9 else f"{num_bytes / 1e6:.0f} MB"


def _round_up(context: int) -> int:
    return -(-context // _CONTEXT_STEP) * _CONTEXT_STEP
