"""`chaku runs`: what training runs are here, and how one goes or went. Reads their folders; loads no torch."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import click

from chaku.cli.help_page import group
from chaku.cli.json_output import print_json
from chaku.cli.run_plot import plot
from chaku.cli.run_push import push
from chaku.cli.watching import every_option
from chaku.runs import find_run, read_log, run_folders, steps_of
from chaku.weights.card import lineage as lineage_of
from chaku.weights.card import read_manifest

_ROOT = click.Path(path_type=Path, file_okay=False)
_BARS = "▁▂▃▄▅▆▇█"


@group()
def runs() -> None:
    """List, show, watch, plot and push training runs."""


runs.add_command(plot)
runs.add_command(push)


@runs.command("list")
@click.argument("root", type=_ROOT, default=Path("runs"))
@click.option("--json", "as_json", is_flag=True, help="Print the same as JSON.")
def list_runs(root: Path, as_json: bool) -> None:
    """List the runs below ROOT, newest last."""
    rows = [_row(folder) for folder in sorted(run_folders(root), key=lambda path: str(read_manifest(path)["started"]))]
    if as_json:
        print_json(rows)
        return
    if not rows:
        click.echo(f"no runs below {root}")
    width = max((len(row["name"]) for row in rows), default=0)
    for row in rows:
        loss = "no step yet" if row["loss"] is None else f"loss {row['loss']:.4f}"
        state = "finished" if row["finished"] else "not finished"
        after = f"  after {row['continued_from']}" if row["continued_from"] else ""
        click.echo(f"{row['name']:<{width}} {row['steps']:>7,} steps  {loss:<14} {state:<13} {row['base']}{after}")


def _row(folder: Path) -> dict[str, Any]:
    manifest, steps = read_manifest(folder), steps_of(folder)
    heldout = [one["heldout_loss"] for one in steps if "heldout_loss" in one]
    return {
        "name": folder.name, "folder": str(folder), "base": manifest["base"]["name"],
        "continued_from": (manifest.get("continued_from") or {}).get("name"), "steps": len(steps),
        "loss": steps[-1]["loss"] if steps else None, "heldout_loss": heldout[-1] if heldout else None,
        "started": manifest["started"], "finished": manifest["finished"],
    }  # fmt: skip


@runs.command()
@click.argument("run")
@click.option("--json", "as_json", is_flag=True, help="Print the manifest.")
def show(run: str, as_json: bool) -> None:
    """Show a run's data, losses and checkpoints."""
    folder = find_run(run)
    manifest, steps = read_manifest(folder), steps_of(folder)
    if as_json:
        click.echo((folder / "manifest.json").read_text())
        return

    data, result = manifest["data"], manifest["result"] or {}
    checkpoints = sorted((folder / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    lines = {
        "base": manifest["base"]["name"],
        **{name.lower(): value for name, value in lineage_of(manifest).items()},
        "data": f"{data['folder']}: {_size(data)}, {data['num_tokens']:,} tokens,"
        f" {data['num_trained_tokens']:,} of them trained; template {data['template']}",
        "started": manifest["started"],
        "finished": manifest["finished"] or "no",
        "steps": f"{len(steps):,}",
        "loss": f"{steps[0]['loss']:.4f} -> {steps[-1]['loss']:.4f}  {sparkline(steps)}" if steps else "-",
        "held out": " -> ".join(f"{one['heldout_loss']:.4f}" for one in steps if "heldout_loss" in one) or "-",
        "hours": f"{sum(one['seconds'] for one in steps) / 3600:.3f}",
        "speed": _speed(steps),
        "dollars": f"{steps[-1]['dollars']:.2f}" if steps and "dollars" in steps[-1] else "-",
        "hardware": result.get("hardware", "-"),
        "checkpoints": ", ".join(path.name for path in checkpoints) or "none",
        "result": str(folder / "final") if (folder / "final").is_dir() else "none yet",
    }
    for name, value in lines.items():
        click.echo(f"{name:<15}{value}")
    for event in (one for one in read_log(folder / "log.jsonl") if "event" in one):
        click.echo(f"{'event':<15}{event['event']} after step {event['step']:,}" + _details(event))


def _size(data: dict[str, Any]) -> str:
    if "num_pairs" in data:
        return f"{data['num_pairs']:,} preference pairs"
    return f"{data['num_conversations']:,} conversations"


def _speed(steps: list[dict[str, Any]]) -> str:
    """Of the median step."""

    if not steps:
        return "-"
    mfu = [one["mfu"] for one in steps if "mfu" in one]
    share = f", {statistics.median(mfu):.1%} useful MFU" if mfu else ""
    return f"{statistics.median(one['tokens_per_s'] for one in steps):,.0f} tokens/s{share}"


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
@every_option
def watch(run: str, every_s: float) -> None:
    """Print steps as they are logged, until the run ends."""
    folder, seen = find_run(run), 0
    while True:
        is_finished = read_manifest(folder)["finished"] is not None
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
