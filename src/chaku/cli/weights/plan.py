"""`chaku weights plan`: does a model fit on GPUs, at which dtype, over how many, and what is left for requests."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import click

from chaku.cli.help_page import command
from chaku.cli.json_output import print_json
from chaku.errors import UsageError
from chaku.models.plan.accelerators import accelerator
from chaku.models.plan.gpu_plan import USED_SHARE, plan_gpus, smallest
from chaku.models.sources import shape_of

if TYPE_CHECKING:
    from chaku.models.plan.gpu_plan import GpuPlan, Layout

_GIB = 1 << 30


@command()
@click.argument("model")
@click.option("--gpu", metavar="GPU", show_default="a table of all", help="Kind of GPU, such as V100-32GB.")
@click.option(
    "--count", metavar="N", type=click.IntRange(1, 64), default=1, show_default=True, help="How many of them."
)
@click.option(
    "--context",
    metavar="TOKENS",
    show_default="what it was trained for",
    type=click.IntRange(min=64),
    help="Tokens of one request.",
)
@click.option("--dtype", type=click.Choice(["f32", "bf16", "f16", "fp8", "int8", "int4"]), help="Of the weights.")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def plan(model: str, gpu: str | None, count: int, context: int | None, dtype: str | None, as_json: bool) -> None:
    """Lay MODEL out on GPUs, with the arithmetic shown. Nothing is fetched or loaded.

    MODEL is a published Vicuna (vicuna-33b-v1.3), a built-in name, a .gguf, or a Hugging Face folder or config.json.
    """

    shape = shape_of(model)
    if gpu is None:
        if count != 1 or dtype is not None:
            raise UsageError("--count and --dtype are for one kind of GPU", fix="name it: --gpu A100-80GB")
        plans = smallest(shape, context)
        if as_json:
            print_json([_as_json(one) for one in plans])
        else:
            _print_table(plans)
        return
    made = plan_gpus(shape, accelerator(gpu), count, context=context, dtype=dtype)
    if as_json:
        print_json(_as_json(made))
    else:
        _print_plan(made)


def _as_json(made: GpuPlan) -> dict[str, Any]:
    return {
        "model": dataclasses.asdict(made.shape),
        "gpu": dataclasses.asdict(made.gpu),
        "count": made.count,
        "context": made.context,
        "dtype": made.dtype,
        "fits": made.fits,
        "best": _layout_json(made.best) if made.best else None,
        "layouts": [_layout_json(layout) for layout in made.layouts],
        "alternatives": [_layout_json(layout) for layout in made.alternatives],
        "notes": made.notes,
    }


def _layout_json(layout: Layout) -> dict[str, Any]:
    derived = ("gpus", "kv_room_bytes", "tokens", "requests", "fits", "split")
    return dataclasses.asdict(layout) | {name: getattr(layout, name) for name in derived}


def _print_plan(made: GpuPlan) -> None:
    shape = made.shape
    _say("model", f"{shape.name}: {shape.num_parameters:,} parameters, {shape.num_layers} layers, {shape.heads} heads")
    _say("gpus", f"{made.count} x {made.gpu.name}, {_gib(made.gpu.memory_bytes)} each")
    _say("dtype", made.dtype)
    for note in made.notes:
        _say("note", note)
    if made.best is None:
        _say("fits", f"no: not even one request of {made.context:,} tokens, however it is split")
        for layout in made.alternatives:
            _say("instead", f"{layout.dtype}: {_outcome(layout)}")
        if not made.alternatives:
            _say("instead", "more or larger GPUs; without --gpu all kinds are shown")
        _print_layouts(made)
        return
    _say("fits", f"yes: {made.best.split}")
    _print_arithmetic(made, made.best)
    _say("serves", _outcome(made.best))
    if made.best.replicas > 1:
        _say("in all", f"{made.best.requests * made.best.replicas} requests at once over {made.best.replicas} replicas")
    _print_layouts(made)


def _print_arithmetic(made: GpuPlan, best: Layout) -> None:
    click.echo("\none GPU:")
    rows = (
        ("usable", best.usable_bytes, f"{USED_SHARE:.0%} of {_gib(made.gpu.memory_bytes)}"),
        ("weights", -best.weights_bytes, f"{made.dtype}, the share of one of {best.gpus}"),
        ("engine", -best.overhead_bytes, "runtime, activations, logits (an estimate)"),
        ("cache", best.kv_room_bytes, f"{best.tokens:,} tokens of {best.kv_bytes_per_token / 1024:,.0f} KiB"),
    )
    for name, size, meaning in rows:
        click.echo(f"  {name:<9}{size / _GIB:>8.2f} GiB  {meaning}")
    click.echo()


def _print_layouts(made: GpuPlan) -> None:
    click.echo(f"\n{'every split':<54}{'weights':>11}{'cache':>11}{'requests of ' + format(made.context, ','):>22}")
    for layout in made.layouts:
        requests = f"{layout.requests} x {layout.replicas}" if layout.fits else "does not fit"
        sizes = f"{layout.weights_bytes / _GIB:>7.2f} GiB{max(layout.kv_room_bytes, 0) / _GIB:>7.2f} GiB"
        mark = "*" if layout == made.best else " "
        click.echo(f"{mark} {layout.split:<52}{sizes}{requests:>22}")


def _print_table(plans: list[GpuPlan]) -> None:
    shape = plans[0].shape
    click.echo(f"{shape.name}: {shape.num_parameters:,} parameters, requests of {plans[0].context:,} tokens\n")
    click.echo(f"{'gpu':<11}{'count':>6}  {'dtype':<6} {'requests':>9}  how")
    for made in plans:
        if made.best is None:
            instead = " or ".join(f"{one.dtype} ({one.split})" for one in made.alternatives)
            how = f"does not fit on {made.count}" + (f"; fits as {instead}" if instead else "")
            click.echo(f"{made.gpu.name:<11}{'-':>6}  {made.dtype:<6} {'-':>9}  {how}")
        else:
            requests = made.best.requests * made.best.replicas
            click.echo(f"{made.gpu.name:<11}{made.count:>6}  {made.dtype:<6} {requests:>9,}  {made.best.split}")


def _outcome(layout: Layout) -> str:
    return (
        f"{layout.split}; each replica holds {layout.tokens:,} tokens: {layout.requests} "
        f"request{'s' * (layout.requests != 1)} of {layout.context:,} at once"
    )


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / _GIB:.2f} GiB"


def _say(name: str, value: str) -> None:
    click.echo(f"{name:<9}{value}")
