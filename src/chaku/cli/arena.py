"""`chaku arena` and `chaku leaderboard`: ratings of models from files of comparisons."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import click
import orjson

from chaku.arena.battle_files import Reading, read_battles
from chaku.arena.board import Board, Options, Row, rate, rate_by
from chaku.arena.board_page import page
from chaku.cli.help_page import command, group
from chaku.comparison import write_comparisons
from chaku.errors import UsageError
from chaku.records import atomic_write

_FILES = click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
_MOST_REASONS = 5


@group()
def arena() -> None:
    """Rate models from votes and verdicts."""


@arena.command("rate")
@_FILES
@click.option("--anchor", metavar="MODEL", help="Fix this model's rating; errors are then those of the difference.")
@click.option("--anchor-rating", metavar="POINTS", default=1000.0, show_default=True, help="The rating to fix it at.")
@click.option("--style-control", is_flag=True, help="Take the effect of length, headers, lists and bold text out.")
@click.option("--by", type=click.Choice(["category", "language", "month", "source"]), help="Rate each group apart.")
@click.option(
    "--cluster",
    type=click.Choice(["auto", "voter", "prompt", "day", "none"]),
    default="auto",
    show_default=True,
    help="What is not independent: errors grow accordingly.",
)
@click.option("--prior", metavar="GAMES", type=float, default=0.0, show_default=True, help="Tied games per model.")
@click.option(
    "--level",
    metavar="SHARE",
    type=click.FloatRange(0.5, 0.9999),
    default=0.95,
    show_default=True,
    help="How certain the intervals are.",
)
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Also write the JSON there.")
def rate_files(
    files: tuple[Path, ...],
    anchor: str | None,
    anchor_rating: float,
    style_control: bool,
    by: str | None,
    cluster: str,
    prior: float,
    level: float,
    as_json: bool,
    output: Path | None,
) -> None:
    """Rate the models of comparison files, with intervals.

    FILE is JSON lines or JSON of chaku's comparisons, FastChat's battles or logs, or MT-bench labels; or a CSV with
    the columns model_a, model_b and winner.
    """
    options = Options(anchor, anchor_rating, prior, cluster, style_control, level)  # type: ignore[arg-type]
    reading = _read(files)
    if by is None:
        boards: dict[str, Board | UsageError] = {"": rate(reading.comparisons, options)}
    else:
        boards = rate_by(reading.comparisons, by, options)  # type: ignore[arg-type]
    found = {name: board.as_json() if isinstance(board, Board) else _refusal(board) for name, board in boards.items()}
    content = orjson.dumps(found[""] if by is None else found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if output is not None:
        with atomic_write(output) as file:
            file.write(content)
    if as_json:
        click.echo(content, nl=False)
    else:
        for name, board in boards.items():
            if by is not None:
                click.secho(f"\n{by} {name}" if not name.startswith("no ") else f"\n{name}", bold=True)
            click.echo(_table(board) if isinstance(board, Board) else f"no ratings: {board}")
    if not any(isinstance(board, Board) for board in boards.values()):
        raise UsageError(f"no {by} has ratings", fix="rate all together, without --by, or give a --prior")


@arena.command("import")
@_FILES
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), required=True, help="JSONL to write.")
def import_files(files: tuple[Path, ...], output: Path) -> None:
    """Write any comparison files as chaku's JSON lines."""
    reading = _read(files)
    write_comparisons(output, reading.comparisons)
    click.echo(f"{output}: {len(reading.comparisons):,} comparisons, {len(reading.counted):,} of them counted")


@command()
@_FILES
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print as CSV.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write one page that stands alone.")
@click.option("--title", metavar="TEXT", default="Leaderboard", show_default=True, help="The page's title.")
def leaderboard(files: tuple[Path, ...], as_json: bool, as_csv: bool, html: Path | None, title: str) -> None:
    """Show the ratings of comparison files as a table or a page."""
    reading = _read(files)
    board = rate(reading.comparisons)
    if html is not None:
        with atomic_write(html) as file:
            file.write(page(title, board, reading).encode())
        click.echo(f"{html} shows {len(board.rows)} models and {board.num_games:,} games", err=True)
    if as_json:
        click.echo(orjson.dumps(board.as_json(), option=orjson.OPT_INDENT_2).decode())
    elif as_csv:
        click.echo(_as_csv(board), nl=False)
    elif html is None:
        click.echo(_table(board))


def _read(files: tuple[Path, ...]) -> Reading:
    """Read the files, and say on stderr what is left out."""
    reading = read_battles(files)
    if reading.skipped:
        click.echo(f"left out: {_reasons(reading.skipped)}", err=True)
    uncounted = Counter(game.reason or "no reason" for game in reading.comparisons if not game.counted)
    if uncounted:
        click.echo(f"not counted: {_reasons(uncounted)}", err=True)
    if not reading.comparisons:
        why = f" ({_reasons(reading.skipped)})" if reading.skipped else ""
        raise UsageError(
            f"no comparison was found in {', '.join(map(str, files))}{why}",
            fix="a record needs model_a, model_b and winner; see `chaku arena rate --help`",
        )
    return reading


def _reasons(counts: Counter[str]) -> str:
    shown = ", ".join(f"{num:,} x {reason}" for reason, num in counts.most_common(_MOST_REASONS))
    return shown if len(counts) <= _MOST_REASONS else f"{shown}, and {len(counts) - _MOST_REASONS} more reasons"


def _refusal(error: UsageError) -> dict[str, object]:
    return {"models": {}, "error": str(error)}


def _ranks(row: Row) -> str:
    return str(row.rank_low) if row.rank_low == row.rank_high else f"{row.rank_low}-{row.rank_high}"


def _table(board: Board) -> str:
    width = max(5, *(len(row.name) for row in board.rows))
    lines = [f"{'rank':>7}  {'model':<{width}} {'rating':>7} {'interval':>16} {'votes':>8}"]
    for row in board.rows:
        interval = f"{row.low:.0f} to {row.high:.0f}"
        note = "  collecting" if row.is_collecting else ""
        lines.append(f"{_ranks(row):>7}  {row.name:<{width}} {row.rating:>7.0f} {interval:>16} {row.votes:>8,}{note}")
    for name, (effect, error) in board.effects.items():
        lines.append(f"style: one standard deviation more {name}: {effect:+.3f} log odds (error {error:.3f})")
    if board.flips is not None:
        lines.append(str(board.flips))
    lines.append(f"{board.num_games:,} games; {board.method}")
    return "\n".join(lines)


def _as_csv(board: Board) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["rank_low", "rank_high", "model", "rating", "low", "high", "votes"])
    for row in board.rows:
        figures = (f"{value:.2f}" for value in (row.rating, row.low, row.high))
        writer.writerow([row.rank_low, row.rank_high, row.name, *figures, row.votes])
    return text.getvalue()
