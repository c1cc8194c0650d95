"""The page at / until the chat page takes its place: what is served, in what state, and how to talk to it."""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable
from typing import Any

from fastapi import FastAPI
from fastapi.responses import HTMLResponse

_STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 44rem; margin: 3rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } code, pre { font: 0.9rem/1.5 ui-monospace, monospace; }
pre { padding: 0.8rem; overflow-x: auto; border: 1px solid #8886; border-radius: 6px; }
table { border-collapse: collapse; width: 100%; } th, td { text-align: left; padding: 0.3rem 0.8rem 0.3rem 0; }
td { border-top: 1px solid #8886; overflow-wrap: anywhere; }
"""


def mount(app: FastAPI, models: Callable[[], Iterable[Any]]) -> None:
    """Answer / with the landing page. `models` gives the rows of /v1/models."""

    @app.get("/", include_in_schema=False)
    async def landing() -> HTMLResponse:
        rows = list(models())
        policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; frame-ancestors 'none'"
        return HTMLResponse(render(rows), headers={"content-security-policy": policy, "cache-control": "no-store"})


def render(rows: list[Any]) -> str:
    """The page as HTML; it refreshes itself while a model is loading."""
    is_loading = any(row["state"] in ("loading", "restarting") for row in rows)
    refresh = '<meta http-equiv="refresh" content="2">' if is_loading else ""
    name = html.escape(rows[0]["id"]) if rows else "MODEL"
    cells = ([html.escape(str(row[key])) for key in ("id", "state", "detail")] for row in rows)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>chaku</title>{refresh}<style>{_STYLE}</style></head><body>
<h1>chaku is serving</h1>
<table><thead><tr><th>model</th><th>state</th><th></th></tr></thead><tbody>{body}</tbody></table>
<p>Talk to it in a terminal with <code>chaku chat</code>, or from any OpenAI client:</p>
<pre>curl /v1/chat/completions \\
  -H 'Content-Type: application/json' \\
  -d '{{"model": "{name}", "messages": [{{"role": "user", "content": "Hello"}}]}}'</pre>
<p>The <a href="/docs">API page</a> lists every route and field; <a href="/health">/health</a> and
<a href="/metrics">/metrics</a> are for machines.</p>
</body></html>"""
