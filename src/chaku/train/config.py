"""The `train` section of a recipe: every choice of a run, checked; presets below it, `--set` above it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from chaku.config import Frozen, explain, load
from chaku.data.presets import data_preset
from chaku.data.recipe import Recipe
from chaku.errors import ConfigError
from chaku.train.presets import PRESETS


class LoraConfig(Frozen):
    """Low-rank adapters, in peft's words."""

    rank: int = Field(16, ge=1, le=1024)
    """Rank of the matrices."""
    alpha: int = Field(32, ge=1)
    """Their product is scaled by alpha / rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the adapters."""
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear layers that get adapters."""


class DpoConfig(Frozen):
    """Direct preference optimisation."""

    beta: float = Field(0.1, gt=0)
    """How close the model stays to the reference: a smaller value allows more change."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Assumed share of wrong labels."""
    length_normalised: bool = False
    """Divide each answer's log ratio by its number of tokens. Then use a larger beta, such as 5."""


class TrainConfig(Frozen):
    """How a set becomes a model."""

    EXAMPLES: ClassVar[dict[str, str]] = {
        "lr": "2e-5", "epochs": "3", "batch_rows": "128", "micro_rows": "2", "max_steps": "100", "compile": "true",
        "lora": "{rank: 16}", "dpo": "{beta: 0.1}", "sample_prompts": "[Who are you?]", "betas": "[0.9, 0.999]",
    }  # fmt: skip
    """What an error about a key shows."""
    preset: str | None = None
    """Named set of defaults; `chaku train --presets` lists them."""
    output: Path = Path("runs")
    """Folder in which the run's own folder is made."""
    continue_from: Path | None = None
    """A run, or one of its checkpoints, whose weights this run begins with. `base` stays that run's base."""
    objective: Literal["supervised", "dpo"] = "supervised"
    """supervised: learn the answers of conversations. dpo: prefer the chosen answers of pairs."""
    dpo: DpoConfig = DpoConfig()
    """Settings of objective dpo."""
    method: Literal["full", "lora", "qlora"] = "full"
    """full: train all weights. lora: train adapters. qlora: train adapters on a base in 4 bits."""
    lora: LoraConfig = LoraConfig()
    """Settings of the adapters."""
    precision: Literal["fp32", "bf16"] = "bf16"
    """Number format of the arithmetic. Trained weights, and gradients summed over processes, stay fp32."""
    rope_scaling: Literal["linear"] | None = None
    """Scale positions, for rows longer than the base was trained for."""
    epochs: int = Field(3, ge=1)
    """Passes over the training rows."""
    max_steps: int | None = Field(None, ge=1)
    """Stop after so many steps, even if epochs remain."""
    batch_rows: int = Field(128, ge=1)
    """Rows per step, over all processes and micro-batches."""
    micro_rows: int = Field(1, ge=1)
    """Rows per micro-batch: those that one process computes at once."""
    lr: float = Field(2e-5, gt=0)
    """Highest learning rate."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the learning rate falls after the warm-up."""
    warmup: float = Field(0.03, ge=0, lt=1)
    """Share of the steps in which the learning rate rises from 0."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's weight decay, on matrices only."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's betas."""
    eps: float = Field(1e-8, gt=0)
    """AdamW's epsilon."""
    max_grad_norm: float = Field(1.0, gt=0)
    """Larger gradients are scaled down to this norm."""
    seed: int = Field(0, ge=0, lt=1 << 31)
    """Decides the order of the rows, the first values of adapters, and dropout."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """auto: cuda if torch sees a GPU, otherwise cpu."""
    threads: int | None = Field(None, ge=1)
    """CPU threads of one process. Default: torch's own choice."""
    attention: Literal["auto", "sdpa", "varlen"] = "auto"
    """sdpa: a mask keeps documents apart. varlen: flash attention by document, GPU only. auto: varlen on a GPU."""
    activation_checkpointing: Literal["none", "selective", "full"] = "none"
    """Recompute activations to save memory. selective: keep those of matrix products and attention."""
    compile: bool | Literal["auto"] = "auto"
    """Compile the layers with torch.compile. auto: on CUDA, except for qlora."""
    reshard_after_forward: bool | Literal["auto"] = "auto"
    """Several processes: free a layer's gathered weights after its forward. auto: unless all fill under a fifth."""
    frozen_base: Literal["auto", "sharded", "replicated"] = "auto"
    """Several processes with lora: where the base is. auto: whole on each GPU if it fills under 40 % of one."""
    fused_optimiser: bool = True
    """Use PyTorch's fused AdamW."""
    loss_chunk_tokens: int = Field(2048, ge=0)
    """Supervised tokens whose logits exist at the same time; 0: all."""
    prefetch_steps: int = Field(2, ge=0)
    """Batches that a thread prepares ahead; 0: none."""
    save_every: int = Field(100, ge=1)
    """Steps between checkpoints. The last step always has one."""
    keep_last: int = Field(2, ge=1)
    """Newest checkpoints to keep."""
    keep_best: bool = False
    """Keep the checkpoint with the lowest held-out loss too."""
    save_in_background: bool = True
    """Continue training while a checkpoint is written."""
    final_dtype: Literal["bf16", "fp16", "fp32"] | None = None
    """Number format of the weights in final/. Default: that of `precision`; adapters stay fp32."""
    evaluate_every: int = Field(100, ge=0)
    """Steps between held-out losses; 0: only at the end."""
    evaluate_rows: int = Field(64, ge=1)
    """Most test rows for a held-out loss."""
    sample_prompts: tuple[str, ...] = ()
    """Questions that the model answers at the start and at the end."""
    sample_every: int = Field(0, ge=0)
    """Answer them every so many steps too; 0: only at the start and the end."""
    track: Literal["trackio", "wandb", "tensorboard"] | None = None
    """Send the log's numbers to this tool too."""
    dollars_per_hour: float | None = Field(None, ge=0)
    """Price of all machines together. The log sums up the cost."""
    peak_tflops: float | None = Field(None, gt=0)
    """Peak of one process's device in bf16, for the useful MFU. Default: from the table of GPUs; none for a CPU."""
    spot_notice: bool = False
    """When the cloud gives notice that it takes this machine back, save and exit as after SIGTERM."""

    @model_validator(mode="after")
    def _fits_together(self) -> TrainConfig:
        if self.objective != "dpo" and self.dpo != DpoConfig():
            raise ValueError("dpo: {...} needs objective: dpo")
        if self.keep_best and not self.evaluate_every:
            raise ValueError("keep_best needs held-out losses: set evaluate_every")
        if self.keep_best and self.evaluate_every % self.save_every and self.save_every % self.evaluate_every:
            raise ValueError("keep_best needs evaluate_every and save_every of which one divides the other")
        return self


# What may differ between the recipe of a run and the one that it is resumed with: nothing that changes its
# numbers by more than rounding.
FREE_ON_RESUME = frozenset(
    {
        "output", "save_every", "keep_last", "keep_best", "save_in_background", "final_dtype", "evaluate_every",
        "evaluate_rows",
        "prefetch_steps", "device", "threads", "micro_rows", "attention", "activation_checkpointing", "compile",
        "reshard_after_forward", "frozen_base",
        "fused_optimiser", "loss_chunk_tokens", "sample_prompts", "sample_every", "track", "dollars_per_hour",
        "peak_tflops",
        "spot_notice",
    }
)  # fmt: skip


def read_recipe(file: Path, settings: Iterable[str] = ()) -> Recipe:
    """A recipe with `a.b=c` settings on top. Raises ConfigError naming the key at fault."""
    return recipe_of(load(Recipe, file).config.model_dump(exclude_unset=True), settings, where=str(file))


def recipe_of(values: dict[str, Any], settings: Iterable[str] = (), *, where: str) -> Recipe:
    """A recipe from its values and `a.b=c` settings on top, which go into `values`. Raises ConfigError."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals or not path:
            raise ConfigError(f"--set {setting!r} has no value", fix="write it such as --set train.lr=1e-5")
        _put(values, path.split("."), _value(text), setting)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise explain(error, Recipe, where=where) from None


def run_folder(recipe: Recipe) -> Path:
    """Where a recipe's run lies. Raises ConfigError for a name that would lie elsewhere."""
    if recipe.name in ("", ".", "..") or "/" in recipe.name or "\\" in recipe.name:
        raise ConfigError(
            f"name: {recipe.name!r} is not a name for a run's folder",
            fix="write a name without separators; train.output says where runs lie", param="name",
        )  # fmt: skip
    return train_config(recipe).output / recipe.name


def is_hub_id(name: str) -> bool:
    """Whether a base is fetched from the hub."""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not Path(name).exists()


def _value(text: str) -> Any:
    """YAML, and 1e-5 as the number that YAML 1.1 takes for a text."""
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        return text
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _put(values: dict[str, Any], path: list[str], value: Any, setting: str) -> None:
    for key in path[:-1]:
        inner = values.setdefault(key, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"--set {setting!r}: {key} holds {inner}, which has no keys", fix="set it as a whole")
        values = inner
    values[path[-1]] = value


def train_config(recipe: Recipe) -> TrainConfig:
    """The `train` section over its preset. Raises ConfigError naming the key and the nearest known one."""
    section = {key: _number(value) for key, value in recipe.train.items()}
    try:
        return TrainConfig.model_validate({**_preset(section), **section})
    except ValidationError as error:
        raise explain(error, TrainConfig, where=f"train section of {recipe.name}") from None


def _number(value: Any) -> Any:
    return _value(value) if isinstance(value, str) and value[:1].isdigit() else value


def _preset(section: Mapping[str, Any]) -> dict[str, Any]:
    name = section.get("preset")
    if name is None:
        return {}
    data_preset(name)  # refuses an unknown name
    return PRESETS[name].train
