"""`chaku arena` and `chaku leaderboard`: ratings of models from the store's comparisons, or from files of them."""

from __future__ import annotations

import csv
import datetime as dt
import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import orjson

from chaku.arena.battle_files import Reading, read_battles
from chaku.arena.board import Board, Options, Row, rate, rate_by
from chaku.arena.board_page import page
from chaku.cli.help_page import command, group
from chaku.cli.json_output import print_json
from chaku.cli.keys import database_option, require_database
from chaku.comparison import Comparison, redacted, write_comparisons
from chaku.config import database_url
from chaku.errors import UsageError
from chaku.evals.records import Run
from chaku.records import atomic_write
from chaku.store.comparisons import ComparisonBook
from chaku.store.database import open_store

_NEEDED_FILES = click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
_FILES = click.argument("files", metavar="[FILE]...", nargs=-1, type=click.Path(path_type=Path))
_DATE = click.DateTime(["%Y-%m-%d"])
_MOST_REASONS = 5
Command = TypeVar("Command", bound=Callable[..., Any])


def _from_store(command: Command) -> Command:
    """Decorate a command with what it needs to choose games."""
    for option in (
        click.option("--examples", is_flag=True, help="Take the store's example votes too."),
        click.option("--until", metavar="DATE", type=_DATE, help="Only games before that day (2026-02-01, UTC)."),
        click.option("--since", metavar="DATE", type=_DATE, help="Only games of that day or later (2026-01-01, UTC)."),
        database_option("Where the votes are."),
    ):
        command = option(command)
    return command


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
    help="Which games depend on each other: errors grow accordingly.",
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
@_from_store
def rate_games(
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
    database: str | None,
    since: dt.datetime | None,
    until: dt.datetime | None,
    examples: bool,
) -> None:
    """Rate models with intervals.

    Without a FILE, the store's votes are rated.
    FILE is JSON lines or JSON of chaku's comparisons, FastChat's battles or logs, or MT-bench labels; or a CSV with
    the columns model_a, model_b and winner; or a run's folder of `chaku eval`, whose verdicts count as games.
    """
    options = Options(anchor, anchor_rating, prior, cluster, style_control, level)  # type: ignore[arg-type]
    games = _Games(files, database, since, until, examples)
    reading = games.reading
    if by is None:
        boards: dict[str, Board | UsageError] = {"": rate(reading.comparisons, options)}
    else:
        boards = rate_by(reading.comparisons, by, options)  # type: ignore[arg-type]
    found = {name: board.as_json() if isinstance(board, Board) else _refusal(board) for name, board in boards.items()}
    content = orjson.dumps(found[""] if by is None else found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if output is not None:
        with atomic_write(output) as file:
            file.write(content)
        for board in boards.values():
            if isinstance(board, Board):
                games.note_snapshot(output.name, board)
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
@_NEEDED_FILES
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Write JSON lines there instead.")
@database_option("The store to put them into.")
def import_files(files: tuple[Path, ...], output: Path | None, database: str | None) -> None:
    """Put comparison files into the store.

    With --output they are written as chaku's JSON lines instead.
    What is in the store already stays as it is, so that you can import a file again.
    """
    reading = _read(files)
    num, num_counted = len(reading.comparisons), len(reading.counted)
    if output is not None:
        write_comparisons(output, reading.comparisons)
        click.echo(f"{output}: {num:,} comparisons, {num_counted:,} of them counted")
        return
    with open_store(database or database_url()) as store:
        num_new = ComparisonBook(store).add(reading.comparisons)
    click.echo(f"{num_new:,} new comparisons of {num:,}, {num_counted:,} of them counted")


@arena.command("export")
@click.option("-o", "--output", metavar="FILE", type=click.Path(path_type=Path), required=True, help="JSONL to write.")
@click.option("--redact", is_flag=True, help="Replace voters by numbers and times by days.")
@_from_store
def export_games(
    output: Path,
    redact: bool,
    database: str | None,
    since: dt.datetime | None,
    until: dt.datetime | None,
    examples: bool,
) -> None:
    """Write the store's comparisons as JSON lines.

    A comparison that does not count has the reason. Prompts and answers are left out.
    """
    games = _Games((), database, since, until, examples)
    comparisons = games.reading.comparisons
    write_comparisons(output, redacted(comparisons) if redact else comparisons)
    games.note_export(output.name)
    click.echo(f"{output}: {len(comparisons):,} comparisons, {len(games.reading.counted):,} of them counted")


@command()
@_FILES
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
@click.option("--csv", "as_csv", is_flag=True, help="Print as CSV.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write one page that stands alone.")
@click.option("--title", metavar="TEXT", default="Leaderboard", show_default=True, help="The page's title.")
@_from_store
def leaderboard(
    files: tuple[Path, ...],
    as_json: bool,
    as_csv: bool,
    html: Path | None,
    title: str,
    database: str | None,
    since: dt.datetime | None,
    until: dt.datetime | None,
    examples: bool,
) -> None:
    """Show ratings as a table or a page.

    Without a FILE, the store's votes are rated.
    """
    games = _Games(files, database, since, until, examples)
    reading = games.reading
    board = rate(reading.comparisons)
    if html is not None:
        games.note_snapshot(html.name, board)
        with atomic_write(html) as file:
            file.write(page(title, board, reading).encode())
        click.echo(f"{html} shows {len(board.rows)} models and {board.num_games:,} games", err=True)
    if as_json:
        print_json(board.as_json())
    elif as_csv:
        click.echo(_as_csv(board), nl=False)
    elif html is None:
        click.echo(_table(board))


class _Games:
    """The games to rate: those of the files, or the store's where there is no file. Says on stderr what is left out."""

    def __init__(
        self,
        files: tuple[Path, ...],
        database: str | None,
        since: dt.datetime | None,
        until: dt.datetime | None,
        examples: bool,
    ) -> None:
        self._database = None if files else database or database_url()
        window = [moment.date().isoformat() if moment else None for moment in (since, until)]
        if self._database is None:
            self.reading = _read(files)
            inside = [game for game in self.reading.comparisons if _is_within(game, *window)]
            self.reading.comparisons = inside
            return
        require_database(database)
        with open_store(self._database) as store:
            found = ComparisonBook(store).games(since=window[0], until=window[1], examples=examples)
        self.reading = Reading(found)
        _tell_left_out(self.reading)
        if not found:
            raise UsageError(
                "the store has no votes", fix="vote in the arena, name files, or `chaku arena import FILE` first"
            )

    def note_snapshot(self, name: str, board: Board) -> None:
        """Remember which votes of the store are in ratings that were written somewhere."""
        self._note(name, board.method, board.data_sha256)

    def note_export(self, name: str) -> None:
        """The same for votes that were written themselves."""
        self._note(name, "export", "")

    def _note(self, name: str, method: str, data_sha256: str) -> None:
        if self._database is not None:
            with open_store(self._database) as store:
                ComparisonBook(store).note_snapshot(
                    name, method, data_sha256, self.reading.counted, now=dt.datetime.now(dt.UTC)
                )


def _is_within(game: Comparison, since: str | None, until: str | None) -> bool:
    if since is None and until is None:
        return True
    return game.created is not None and (since or "") <= game.created and (until is None or game.created < until)


def _read(files: tuple[Path, ...]) -> Reading:
    """Read files of games and folders of runs, and say on stderr what is left out."""
    runs = [path for path in files if (path / "run.json").exists()]
    reading = read_battles([path for path in files if path not in runs])
    reading.comparisons += [verdict for path in runs for verdict in Run.load(path).comparisons()]
    _tell_left_out(reading)
    if not reading.comparisons:
        why = f" ({_reasons(reading.skipped)})" if reading.skipped else ""
        raise UsageError(
            f"no comparison was found in {', '.join(map(str, files))}{why}",
            fix="a record needs model_a, model_b and winner; see `chaku arena rate --help`",
        )
    return reading


def _tell_left_out(reading: Reading) -> None:
    if reading.skipped:
        click.echo(f"left out: {_reasons(reading.skipped)}", err=True)
    uncounted = Counter(game.reason or "no reason" for game in reading.comparisons if not game.counted)
    if uncounted:
        click.echo(f"not counted: {_reasons(uncounted)}", err=True)


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
