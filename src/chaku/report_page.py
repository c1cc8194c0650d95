"""The shell of every report: one HTML file that stands alone, opens from a disk, and sends no request.

Tables of a built set, leaderboards and evaluation runs fill it. Its policy keeps a browser from loading anything else.
"""

from __future__ import annotations

from html import escape

STYLE = """
:root { color-scheme: light dark; --line: light-dark(#d8d8d4, #3a3a38); --quiet: light-dark(#5d5d58, #a5a59e);
  --ink: light-dark(#1d1d1b, #ececea); --page: light-dark(#fdfdfb, #191918); --good: light-dark(#1a7f5a, #5fc79c);
  --bad: light-dark(#c2410c, #f0883e) }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--page); margin: 2rem auto;
  max-width: 72rem; padding: 0 1rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .6rem; border-bottom: 1px solid var(--line) }
.scroll { overflow-x: auto } .quiet { color: var(--quiet) }
"""


def document(title: str, body: str, *, style: str, head: str = "", scripts: str = "'none'") -> str:
    """A whole page; `body`, `style` and `head` stand in it as they are.

    `scripts` are the sources of the policy from which scripts may run.
    """
    policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {scripts}"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width,initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{style}</style>\n{head}</head><body>\n{body}\n</body></html>\n"
    )
