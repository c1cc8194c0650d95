"""`chaku runs`: what training runs are here, and how one goes or went. Reads their folders; loads no torch."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from chaku.cli.run_folders import find_run, manifest_of, records_of, steps_of
from chaku.cli.run_push import push
from chaku.errors import UsageError

_ROOT = click.Path(path_type=Path, file_okay=False)
_BARS = "▁▂▃▄▅▆▇█"


@click.group()
def runs() -> None:
    """List, show, watch, plot and push training runs."""


runs.add_command(push)


@runs.command("list")
@click.argument("root", type=_ROOT, default=Path("runs"))
def list_runs(root: Path) -> None:
    """Runs below ROOT, newest last: steps, loss, and whether they are finished."""
    folders = [path.parent for path in root.glob("*/manifest.json") if (path.parent / "config.yaml").is_file()]
    if not folders:
        click.echo(f"no runs below {root}")
    for folder in sorted(folders, key=lambda path: str(manifest_of(path)["started"])):
        manifest, steps = manifest_of(folder), steps_of(folder)
        loss = f"loss {steps[-1]['loss']:.4f}" if steps else "no step yet"
        state = "finished" if manifest["finished"] else "not finished"
        click.echo(f"{folder.name:<24} {len(steps):>7,} steps  {loss:<14} {state:<13} {manifest['base']['name']}")


@runs.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def show(run: str, as_json: bool) -> None:
    """What a run was made of, what came out, and which checkpoints it holds."""
    folder = find_run(run)
    manifest, steps = manifest_of(folder), steps_of(folder)
    if as_json:
        click.echo((folder / "manifest.json").read_text())
        return
    from chaku.weights.card import lineage as lineage_of

    data, result = manifest["data"], manifest["result"] or {}
    checkpoints = sorted((folder / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    lines = {
        "base": manifest["base"]["name"],
        **{name.lower(): value for name, value in lineage_of(manifest).items()},
        "data": f"{data['folder']}: {data['num_conversations']:,} conversations, {data['num_tokens']:,} tokens,"
        f" {data['num_trained_tokens']:,} of them trained; template {data['template']}",
        "started": manifest["started"],
        "finished": manifest["finished"] or "no",
        "steps": f"{len(steps):,}",
        "loss": f"{steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f}  {sparkline(steps)}" if steps else "-",
        "held out": " -> ".join(f"{one['heldout_loss']:.4f}" for one in steps if "heldout_loss" in one) or "-",
        "hours": f"{sum(one['seconds'] for one in steps) / 3600:.3f}",
        "hardware": result.get("hardware", "-"),
        "checkpoints": ", ".join(path.name for path in checkpoints) or "none",
        "result": str(folder / "final") if (folder / "final").is_dir() else "none yet",
    }
    for name, value in lines.items():
        click.echo(f"{name:<13}{value}")
    for event in (one for one in records_of(folder) if "event" in one):
        click.echo(f"{'event':<13}{event['event']} behind step {event['step']:,}" + _details(event))


def _details(event: dict[str, Any]) -> str:
    if event["event"] == "sample":
        return f": {event['prompt']!r} -> {event['answer']!r}"
    return "".join(f"; skipped {name}: {reason}" for name, reason in event.get("skipped", {}).items())


def sparkline(steps: list[dict[str, Any]], width: int = 40) -> str:
    """Losses as one line of bars, each the mean of its share of the steps."""
    cuts = [steps[len(steps) * at // width : len(steps) * (at + 1) // width] for at in range(width)]
    means = [sum(one["loss"] for one in cut) / len(cut) for cut in cuts if cut]
    low, high = min(means), max(means)
    return "".join(_BARS[round((mean - low) / ((high - low) or 1) * (len(_BARS) - 1))] for mean in means)


@runs.command()
@click.argument("run")
@click.option("--every", "every_s", type=click.FloatRange(0.05), default=1.0, show_default=True, help="Seconds.")
def watch(run: str, every_s: float) -> None:
    """Print steps as they are logged, until the run is finished."""
    folder, seen = find_run(run), 0
    while True:
        is_finished = manifest_of(folder)["finished"] is not None
        steps = steps_of(folder)
        for one in steps[min(seen, len(steps)) :]:
            heldout = f"  held out {one['heldout_loss']:.4f}" if "heldout_loss" in one else ""
            click.echo(
                f"step {one['step']:>7,}  loss {one['loss']:.4f}  lr {one['lr']:.2e}"
                f"  {one['tokens_per_s']:,.0f} tokens/s{heldout}"
            )
        seen = len(steps)
        if is_finished:
            return
        time.sleep(every_s)


@runs.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("losses.svg"), show_default=True)
def plot(names: tuple[str, ...], output: Path) -> None:
    """Draw the losses of runs into one SVG; held-out losses as dots."""
    from chaku.records import atomic_write

    series = {name: steps_of(find_run(name)) for name in names}
    if empty := [name for name, steps in series.items() if not steps]:
        raise UsageError(f"{', '.join(empty)}: no step is logged yet", fix="try again later")
    with atomic_write(output) as file:
        file.write(_svg(series).encode())
    click.echo(f"{output} shows {len(series)} runs")


_COLOURS = ("#1a7f5a", "#b4481f", "#2a5db0", "#8a2f8f", "#7a6a00", "#444444")


def _svg(series: dict[str, list[dict[str, Any]]], width: int = 720, height: int = 360, margin: int = 56) -> str:
    import html

    points = [one for steps in series.values() for one in steps]
    most_steps = max(one["step"] for one in points)
    values = [one[key] for one in points for key in ("loss", "heldout_loss") if key in one]
    low, high = min(values), max(values)

    def place(step: int, value: float) -> tuple[float, float]:
        across = (step - 1) / max(most_steps - 1, 1)
        up = (value - low) / ((high - low) or 1)
        return margin + across * (width - 2 * margin), height - margin - up * (height - 2 * margin)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="12"><title>training loss by step</title><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for value in (low, (low + high) / 2, high):
        x, y = place(1, value)
        parts.append(f'<path d="M{x:.0f} {y:.1f}H{width - margin}" stroke="#ddd"/>')
        parts.append(f'<text x="{margin - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.3g}</text>')
    for step in (1, most_steps):
        parts.append(f'<text x="{place(step, low)[0]:.0f}" y="{height - margin + 18}">{step:,}</text>')
    for index, (name, steps) in enumerate(series.items()):
        colour = _COLOURS[index % len(_COLOURS)]
        line = " ".join("{:.1f},{:.1f}".format(*place(one["step"], one["loss"])) for one in steps)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
        for one in steps:
            if "heldout_loss" in one:
                x, y = place(one["step"], one["heldout_loss"])
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>')
        label = html.escape(name)
        parts.append(f'<text x="{margin}" y="{20 + 16 * index}" fill="{colour}">{label}</text>')
    return "".join([*parts, "</svg>\n"])
