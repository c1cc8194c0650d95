"""The leaderboard as one HTML page that stands alone: no script, no request, dark where the reader's screen is."""

from __future__ import annotations

from html import escape
from string import Template

from chaku.arena.battle_files import Reading
from chaku.arena.board import ENOUGH_VOTES, Board, Row
from chaku.report_page import STYLE, document

_WIDTH = 200
_MOST_IN_MATRIX = 30
_STYLE = """
body { font-size: 16px; max-width: 60rem } p { overflow-wrap: anywhere }
th, td { padding: .3rem .7rem; text-align: right; white-space: nowrap }
th { color: var(--quiet); font-weight: 500 } .name { text-align: left }
td svg { display: block } line { stroke: var(--good); stroke-width: 2 } circle { fill: var(--good) }
.matrix td { min-width: 3rem } .matrix th { max-width: 9rem; overflow: hidden; text-overflow: ellipsis }
"""
_BODY = Template("""<h1>$title</h1>
<p>$summary</p>
<div class="scroll"><table>
<tr><th>rank</th><th class="name">model</th><th>rating</th>
<th class="name" colspan="2">95 % interval</th><th>votes</th></tr>
$rows
</table></div>
$note
$style
<h2>Share of points won</h2>
<p class="quiet">What the row's model won of its games against the column's model; ties are halves. Below: games.</p>
<div class="scroll"><table class="matrix">$matrix</table></div>
<h2>Method</h2>
<p>$method. 400 points are odds of ten to one. A rank is a range where the games don't decide it.</p>
<p>$left_out</p>
<p class="quiet">Data: sha256 $hash</p>""")


_NOTE = f'<p class="quiet">collecting: fewer than {ENOUGH_VOTES} votes, so the interval is still wide.</p>'


def page(title: str, board: Board, reading: Reading) -> str:
    """The page."""
    low, high = min(row.low for row in board.rows), max(row.high for row in board.rows)
    summary = f"{len(board.rows)} models, {board.num_games:,} games."
    if board.flips is not None:
        summary += f" {escape(str(board.flips))}."
    left_out = [f"{num:,} × {escape(reason)}" for reason, num in reading.skipped.most_common()]
    uncounted = len(reading.comparisons) - len(reading.counted)
    left_out += [f"{uncounted:,} not counted"] if uncounted else []
    body = _BODY.substitute(
        title=escape(title),
        summary=summary,
        rows="\n".join(_row(row, low, high) for row in board.rows),
        note=_NOTE if any(row.is_collecting for row in board.rows) else "",
        style="".join(
            f"<p>One standard deviation more {escape(name)}: {effect:+.3f} log odds (error {error:.3f}).</p>"
            for name, (effect, error) in board.effects.items()
        ),
        matrix=_matrix(board),
        method=escape(board.method),
        left_out=f"Left out: {'; '.join(left_out)}." if left_out else "No record was left out.",
        hash=board.data_sha256,
    )
    return document(title, body, style=STYLE + _STYLE)


def _row(row: Row, low: float, high: float) -> str:
    ranks = str(row.rank_low) if row.rank_low == row.rank_high else f"{row.rank_low}–{row.rank_high}"
    note = ' <span class="quiet">collecting</span>' if row.is_collecting else ""

    def place(rating: float) -> str:
        return f"{6 + (rating - low) / max(high - low, 1e-9) * (_WIDTH - 12):.1f}"

    picture = (
        f'<svg width="{_WIDTH}" height="16" role="img" aria-label="{row.low:.0f} to {row.high:.0f}">'
        f'<line x1="{place(row.low)}" x2="{place(row.high)}" y1="8" y2="8"/>'
        f'<circle cx="{place(row.rating)}" cy="8" r="4"/></svg>'
    )
    return (
        f'<tr><td>{ranks}</td><td class="name">{escape(row.name)}{note}</td><td>{row.rating:.0f}</td>'
        f'<td>{picture}</td><td class="quiet">{row.low:.0f} to {row.high:.0f}</td><td>{row.votes:,}</td></tr>'
    )


def _matrix(board: Board) -> str:
    shown = range(min(len(board.rows), _MOST_IN_MATRIX))
    names = [escape(board.rows[at].name) for at in shown]
    lines = ["<tr><th></th>" + "".join(f'<th title="{name}">{name}</th>' for name in names) + "</tr>"]
    for i in shown:
        cells = []
        for j in shown:
            games = board.wins[i, j] + board.wins[j, i]
            text = f'{board.wins[i, j] / games:.0%}<br><span class="quiet">{games:.0f}</span>' if games else ""
            cells.append(f"<td>{text}</td>")
        lines.append(f'<tr><th class="name">{names[i]}</th>{"".join(cells)}</tr>')
    if len(board.rows) > _MOST_IN_MATRIX:
        lines.append(f'<caption class="quiet">The first {_MOST_IN_MATRIX} models.</caption>')
    return "\n".join(lines)
