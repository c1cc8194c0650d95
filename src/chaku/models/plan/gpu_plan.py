"""How a model lies on GPUs: which splits are possible, what each GPU then holds, how much context is left for requests.

Arithmetic only, in bytes. A GPU holds its share of the weights, the engine's own memory and the key-value cache:
tensor-parallel splits every matrix and every head over `tensor` GPUs, so heads must divide; pipeline puts runs of whole
layers on `pipeline` groups. GPUs left over serve further replicas.
"""

from __future__ import annotations

from dataclasses import dataclass

from chaku.errors import ConfigError
from chaku.models.files.shape import ModelShape
from chaku.models.plan.accelerators import ACCELERATORS, Accelerator

USED_SHARE = 0.9
"""Of a GPU's memory an engine plans with; vLLM's default too."""
RUNTIME_BYTES = 1 << 30
"""CUDA context, libraries and communication buffers of one GPU. An estimate."""
BATCH_TOKENS = 2048
"""Prompt tokens of one step, whose activations exist at the same time."""
LOGIT_ROWS = 256
"""Requests of one step, whose logits exist at the same time, in fp32."""
ENOUGH_REQUESTS = 8
"""A replica that serves so many whole-context requests is large enough; a smaller group leaves GPUs for another."""
_UNKNOWN_CONTEXT = 4096
_SIZES = {"f32": 4.0, "bf16": 2.0, "f16": 2.0, "fp8": 1.0, "int8": 1.0, "int4": 4.25 / 8}
"""Bytes of one weight; int4 with a 16-bit scale and zero for 128 weights."""


@dataclass(frozen=True)
class Layout:
    """One way to put a model on the GPUs. Sizes are of the fullest GPU."""

    tensor: int
    pipeline: int
    replicas: int
    dtype: str
    weights_bytes: int
    overhead_bytes: int
    kv_bytes_per_token: int
    """On one GPU."""
    usable_bytes: int
    """What the engine may use of a GPU."""
    context: int
    """Tokens of one request that the plan is for."""

    @property
    def gpus(self) -> int:
        """Of one replica."""
        return self.tensor * self.pipeline

    @property
    def kv_room_bytes(self) -> int:
        """Left for keys and values on one GPU; negative where not even the weights fit."""
        return self.usable_bytes - self.weights_bytes - self.overhead_bytes

    @property
    def tokens(self) -> int:
        """Tokens that a replica's cache holds."""
        return max(self.kv_room_bytes, 0) // max(self.kv_bytes_per_token, 1)

    @property
    def requests(self) -> int:
        """Whole-context requests of one replica at the same time."""
        return self.tokens // self.context

    @property
    def fits(self) -> bool:
        """Whether at least one request of the whole context has room."""
        return self.requests >= 1

    @property
    def split(self) -> str:
        """Such as "tensor-parallel over 4, 2 replicas"."""
        parts = [f"tensor-parallel over {self.tensor}"] * (self.tensor > 1)
        parts += [f"pipeline of {self.pipeline}"] * (self.pipeline > 1)
        parts = [" x ".join(parts)] if parts else ["one GPU each" if self.replicas > 1 else "one GPU"]
        return ", ".join([*parts, f"{self.replicas} replica{'s' * (self.replicas != 1)}"])


@dataclass(frozen=True)
class GpuPlan:
    """What a number of equal GPUs can do for a model."""

    shape: ModelShape
    gpu: Accelerator
    count: int
    context: int
    dtype: str
    layouts: tuple[Layout, ...]
    """Every possible split at `dtype`, those that don't fit too."""
    best: Layout | None
    """None: it does not fit."""
    alternatives: tuple[Layout, ...]
    """Where it does not fit: the best at each quantisation that does."""
    notes: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether there is a way at the dtype the plan is for."""
        return self.best is not None


def plan_gpus(
    shape: ModelShape, gpu: Accelerator, count: int, *, context: int | None = None, dtype: str | None = None
) -> GpuPlan:
    """Every split of the model over `count` GPUs, and the best. Raises ConfigError for a dtype they can't compute in.

    The best is the smallest group of GPUs that serves `ENOUGH_REQUESTS`, otherwise the one with room for most.
    """
    if context is not None and shape.context is not None and context > shape.context:
        fix = f"plan for {shape.context:,} at most"
        raise ConfigError(f"{shape.name} was trained for {shape.context:,} tokens, not {context:,}", fix=fix)
    context = context or shape.context or _UNKNOWN_CONTEXT
    chosen, notes = _choose_dtype(shape, gpu, dtype)
    tensors, refusals = _tensor_sizes(shape, count)
    notes += refusals
    layouts = _layouts(shape, gpu, count, context, chosen, tensors)
    best = _best(layouts)
    alternatives = () if best else _quantised(shape, gpu, count, context, tensors)
    if best and best.tensor > 1 and gpu.nvlink_gb_s is None:
        notes.append(f"{gpu.name} has no NVLink: tensor-parallel exchanges cross PCIe and cost speed")
    if best and (idle := count - best.gpus * best.replicas):
        notes.append(f"{idle} of {count} GPUs stay idle")
    return GpuPlan(shape, gpu, count, context, chosen, layouts, best, alternatives, tuple(notes))


def smallest(shape: ModelShape, context: int | None = None) -> list[GpuPlan]:
    """For every kind of GPU the least number (1, 2, 4 or 8) that the model fits on; 8 where none does."""
    plans = []
    for gpu in ACCELERATORS.values():
        for count in (1, 2, 4, 8):
            plan = plan_gpus(shape, gpu, count, context=context)
            if plan.fits:
                break
        plans.append(plan)
    return plans


def _choose_dtype(shape: ModelShape, gpu: Accelerator, asked: str | None) -> tuple[str, list[str]]:
    if shape.file_bytes is not None:
        if asked is not None:
            raise ConfigError(f"{shape.name} is a GGUF: its weights stay {shape.quantisation}", fix="leave --dtype out")
        return str(shape.quantisation), []
    if asked == "bf16" and not gpu.has_bf16:
        raise ConfigError(f"{gpu.name} has no bf16", fix="take --dtype f16", param="dtype")
    if asked == "fp8" and not gpu.has_fp8:
        raise ConfigError(f"{gpu.name} has no fp8", fix="take --dtype int8", param="dtype")
    if asked:
        return asked, []
    if gpu.has_bf16:
        return ("f16" if shape.dtype == "f16" else "bf16"), []
    notes = [f"{gpu.name} has no bf16: f16"]
    if shape.dtype != "f16":
        notes[0] += "; a model trained in bf16 may overflow beyond 65,504, check its answers"
    return "f16", notes


def _tensor_sizes(shape: ModelShape, count: int) -> tuple[list[int], list[str]]:
    """In how many parts heads can be split, and why not in the others that one would try (powers of two)."""
    if shape.file_bytes is not None:
        return [1], ["llama.cpp puts whole layers on each GPU, no parts of a layer"] if count > 1 else []
    sizes, notes = [], []
    for size in range(1, count + 1):
        broken = [
            f"{number:,} {what}"
            for what, number in (("heads", shape.heads), ("feed-forward rows", shape.feed_forward))
            if number % size
        ]
        if not broken and shape.kv_heads % size and size % shape.kv_heads:
            broken = [f"{shape.kv_heads} key-value heads"]
        if not broken:
            sizes.append(size)
        elif size & (size - 1) == 0:
            notes.append(f"tensor-parallel over {size} is impossible: {' and '.join(broken)} don't divide by {size}")
    return sizes, notes


def _layouts(
    shape: ModelShape, gpu: Accelerator, count: int, context: int, dtype: str, tensors: list[int]
) -> tuple[Layout, ...]:
    return tuple(
        _layout(shape, gpu, count, context, dtype, tensor, pipeline)
        for tensor in tensors
        for pipeline in range(1, min(count // tensor, shape.num_layers) + 1)
        if pipeline == 1 or count % (tensor * pipeline) == 0
    )


def _layout(
    shape: ModelShape, gpu: Accelerator, count: int, context: int, dtype: str, tensor: int, pipeline: int
) -> Layout:
    layers = -(-shape.num_layers // pipeline)
    kv_parts = min(tensor, shape.kv_heads)  # beyond that, heads are held several times
    return Layout(
        tensor=tensor,
        pipeline=pipeline,
        replicas=count // (tensor * pipeline),
        dtype=dtype,
        weights_bytes=-(-_stage_bytes(shape, dtype, layers, pipeline) // tensor),
        overhead_bytes=overhead_bytes(shape, tensor),
        kv_bytes_per_token=2 * shape.kv_numbers_per_token * layers // shape.num_layers // kv_parts,
        usable_bytes=int(gpu.memory_bytes * USED_SHARE),
        context=context,
    )


def _stage_bytes(shape: ModelShape, dtype: str, layers: int, pipeline: int) -> int:
    """The fullest stage: its layers, and the embeddings, of which the ends of a pipeline hold one matrix each."""
    embeddings = shape.embedding_parameters
    if pipeline > 1 and not shape.tied:
        embeddings //= 2
    in_layers = shape.num_parameters - shape.embedding_parameters
    if shape.file_bytes is not None:
        size = shape.file_bytes / shape.num_parameters
        return int(size * (in_layers * layers / shape.num_layers + embeddings))
    # Quantisers leave embeddings and output alone.
    return int(_SIZES[dtype] * in_layers * layers / shape.num_layers + max(_SIZES[dtype], 2.0) * embeddings)


def overhead_bytes(shape: ModelShape, tensor: int) -> int:
    """The engine's own memory on one GPU: runtime, activations of one batch in 16 bits, logits in 32. An estimate."""
    activations = 2 * BATCH_TOKENS * (4 * shape.width + 2 * shape.feed_forward // tensor)
    return RUNTIME_BYTES + activations + 4 * LOGIT_ROWS * shape.vocab_size


def _best(layouts: tuple[Layout, ...]) -> Layout | None:
    fitting = [layout for layout in layouts if layout.fits]
    enough = [layout for layout in fitting if layout.requests >= ENOUGH_REQUESTS]
    if enough:
        return min(enough, key=lambda layout: (layout.gpus, layout.pipeline))
    return max(fitting, key=lambda layout: (layout.requests * layout.replicas, -layout.pipeline), default=None)


def _quantised(shape: ModelShape, gpu: Accelerator, count: int, context: int, tensors: list[int]) -> tuple[Layout, ...]:
    if shape.file_bytes is not None:
        return ()
    kinds = ("fp8" if gpu.has_fp8 else "int8", "int4")
    found = (_best(_layouts(shape, gpu, count, context, kind, tensors)) for kind in kinds)
    return tuple(layout for layout in found if layout)
