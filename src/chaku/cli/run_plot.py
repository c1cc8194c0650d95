"""`chaku runs plot`: a quantity of several runs by step, as one SVG or HTML file that stands alone."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from chaku import report_page
from chaku.cli.help_page import command
from chaku.errors import UsageError
from chaku.records import atomic_write
from chaku.runs import find_run, steps_of

QUANTITIES = {
    "loss": "loss (nats per trained token, or per pair); dots: held out",
    "heldout_loss": "held-out loss (nats per trained token, or per pair)",
    "lr": "learning rate",
    "grad_norm": "gradient norm",
    "tokens_per_s": "tokens per second",
    "margin": "margin between chosen and rejected answers (beta times nats)",
    "accuracy": "share of pairs whose chosen answer gained more",
    "heldout_margin": "held-out margin between chosen and rejected answers (beta times nats)",
    "heldout_accuracy": "share of held-out pairs whose chosen answer gained more",
}
_COLOURS = ("#1a7f5a", "#b4481f", "#2a5db0", "#8a2f8f", "#7a6a00", "#444444")
_DASHES = ("", "6 3", "2 3", "9 3 2 3")
_MOST_POINTS = 600
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 760, 400, 72, 28, 40, 52
_LINE = 18
_MOST_LETTERS = 80


@command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option(
    "--of", "quantity", type=click.Choice(tuple(QUANTITIES)), default="loss", show_default=True, help="What to draw."
)
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    show_default="losses.svg, or named after --of",
    type=click.Path(path_type=Path),
    help="SVG file, or an HTML page with the figures where the name ends in .html.",
)
def plot(names: tuple[str, ...], quantity: str, output: Path | None) -> None:
    """Draw the losses of runs into one SVG or HTML file.

    Draws another quantity with --of; held-out losses are dots.
    """

    output = output or Path("losses.svg" if quantity == "loss" else f"{quantity}.svg")
    flat = [[{**one, **(one.get("metrics") or {})} for one in steps_of(find_run(name))] for name in names]
    series = [Series(name, [one for one in steps if quantity in one]) for name, steps in zip(names, flat, strict=True)]
    if empty := [each.name for each in series if not each.steps]:
        raise UsageError(f"{', '.join(empty)}: no {quantity} is logged yet", fix="try again later")
    with atomic_write(output) as file:
        file.write((page if output.suffix == ".html" else draw)(series, quantity).encode())
    click.echo(f"{output} shows {quantity} of {len(series)} runs")


@dataclass(frozen=True)
class Series:
    """One run's records, all of which hold the quantity."""

    name: str
    steps: list[dict[str, Any]]

    def points(self, quantity: str) -> list[tuple[float, float]]:
        """Steps and values; of a long run the means of equal shares."""
        count = min(len(self.steps), _MOST_POINTS)
        cuts = [self.steps[len(self.steps) * at // count : len(self.steps) * (at + 1) // count] for at in range(count)]
        return [
            (sum(one["step"] for one in cut) / len(cut), sum(one[quantity] for one in cut) / len(cut)) for cut in cuts
        ]

    def heldout(self) -> list[tuple[float, float]]:
        """Steps and held-out losses."""
        return [(one["step"], one["heldout_loss"]) for one in self.steps if "heldout_loss" in one]


_DARK = """@media (prefers-color-scheme: dark) {
.paper { fill: #191918 } .ink { fill: #ececea } .grid { stroke: #3a3a38 } }"""
_STYLE = """
svg { display: block; min-width: 36rem; max-width: 56rem; margin-bottom: 1rem } .paper { fill: none }
th, td { text-align: right } :is(th, td):first-child { text-align: left }
"""


def draw(series: list[Series], quantity: str) -> str:
    """The SVG: axes with round numbers, a line a run, a legend below in which each run has a line."""
    lines = [each.points(quantity) for each in series]
    dots = [each.heldout() if quantity == "loss" else [] for each in series]
    places = [point for each in (*lines, *dots) for point in each]
    steps, values = ticks((x for x, _ in places), 1), ticks(y for _, y in places)

    def place(step: float, value: float) -> str:
        across = (step - steps[0]) / (steps[-1] - steps[0])
        up = (value - values[0]) / (values[-1] - values[0])
        x = _LEFT + across * (_WIDTH - _LEFT - _RIGHT)
        return f"{x:.1f},{_HEIGHT - _BOTTOM - up * (_HEIGHT - _TOP - _BOTTOM):.1f}"

    height = _HEIGHT + _LINE * len(series) + 8
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" font-family="sans-serif"'
        f' font-size="12" fill="#333" class="ink"><title>{html.escape(QUANTITIES[quantity])} by step</title>'
        f"<style>{_DARK}</style>"
        '<rect width="100%" height="100%" fill="#fff" class="paper"/>',
        f'<text x="{_LEFT}" y="{_TOP - 16}">{html.escape(QUANTITIES[quantity])}</text>',
        f'<text x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 12}" text-anchor="middle">step</text>',
    ]
    for value in values:
        x, y = place(steps[0], value).split(",")
        parts.append(f'<path d="M{x} {y}H{_WIDTH - _RIGHT}" stroke="#ddd" class="grid"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{float(y) + 4:.1f}" text-anchor="end">{_number(value, values)}</text>')
    for step in steps:
        x, y = place(step, values[0]).split(",")
        parts.append(f'<path d="M{x} {y}v5" stroke="#999"/>')
        parts.append(f'<text x="{x}" y="{float(y) + 20:.1f}" text-anchor="middle">{_number(step, steps)}</text>')
    for index, (each, line, measured) in enumerate(zip(series, lines, dots, strict=True)):
        colour = _COLOURS[index % len(_COLOURS)]
        pen = f'fill="none" stroke="{colour}" stroke-width="1.5" stroke-dasharray="{_dash(index)}"'
        parts.append(f'<polyline points="{" ".join(place(*point) for point in line)}" {pen}/>')
        alone = line if len(line) == 1 else []
        for x, y in (place(*point).split(",") for point in (*measured, *alone)):
            parts.append(f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"/>')
        y = str(_HEIGHT + _LINE * index + 8)
        parts.append(f'<path d="M{_LEFT} {y}h28" {pen}/>')
        parts.append(f'<text x="{_LEFT + 36}" y="{int(y) + 4}">{html.escape(_short(each.name))}</text>')
    return "".join([*parts, "</svg>\n"])


def page(series: list[Series], quantity: str) -> str:
    """The drawing as a page that stands alone, with the last and the least value of each run below it."""
    rows = []
    for each in series:
        values = [one[quantity] for one in each.steps]
        heldout = [value for _, value in each.heldout()]
        figures = [each.steps[-1]["step"], values[-1], min(values), min(heldout) if heldout else None]
        cells = "".join(f"<td>{'–' if figure is None else f'{figure:,.6g}'}</td>" for figure in figures)
        rows.append(f"<tr><td>{html.escape(each.name)}</td>{cells}</tr>")
    heads = "".join(f"<th>{name}</th>" for name in ("run", "steps", "last", "least", "least held-out loss"))
    table = f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>'
    title = f"{QUANTITIES[quantity].partition(' (')[0]} by step".capitalize()
    body = f'<h1>{title}</h1><div class="scroll">{draw(series, quantity)}</div>{table}'
    return report_page.document(title, body, style=report_page.STYLE + _STYLE)


def ticks(values: Iterable[float], least: float = 0.0) -> list[float]:
    """Two to eight round numbers, equally apart by `least` or more, that reach around the values."""
    found = list(values)
    low, high = min(found), max(found)
    if high == low:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    rough = max((high - low) / 5, least)
    power = 10.0 ** math.floor(math.log10(rough))
    apart = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    first, last = math.floor(low / apart + 1e-9), math.ceil(high / apart - 1e-9)
    return [number * apart for number in range(first, last + 1)]


def _number(value: float, among: list[float]) -> str:
    apart, most = among[1] - among[0], max(abs(each) for each in among)
    if most < 1e-3:
        return f"{value:.1e}" if value else "0"
    return f"{value:,.{max(0, -math.floor(math.log10(apart) + 1e-9))}f}"


def _dash(index: int) -> str:
    return _DASHES[index // len(_COLOURS) % len(_DASHES)]


def _short(name: str) -> str:
    """The end of a long path says more than its start."""
    return name if len(name) <= _MOST_LETTERS else f"…{name[1 - _MOST_LETTERS :]}"
