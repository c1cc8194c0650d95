"""The gateway on this machine: who holds its port, what it serves (`chaku ps`), and how it ends (`chaku stop`)."""

from __future__ import annotations

import http.client
import os
import signal
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import orjson

from chaku.cli.help_page import command
from chaku.cli.json_output import print_json
from chaku.config import DEFAULT_PORT, MAX_PORT, TOKEN_PREFIX, environment
from chaku.errors import ChakuError, UsageError

_ANSWER_S = 2.0
_STOP_S = 30.0
_POLL_S = 0.05


@dataclass(frozen=True)
class Listener:
    """The process that listens on a port."""

    pid: int
    command: str


def listener(port: int) -> Listener | None:
    """Which process listens on a port of this machine; None where that can't be seen (no Linux, another user's)."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in read_text(table).splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*") if inodes else ():
        try:
            if any(str(file.readlink()) in inodes for file in (process / "fd").iterdir()):
                command_line = read_text(str(process / "cmdline")).replace("\0", " ").strip()
                return Listener(int(process.name), command_line)
        except OSError:  # another user's process, or one that has just ended
            continue
    return None


def health(port: int) -> dict[str, Any] | None:
    """What chaku's /health answers there (status, version, models) and its `url`; None where no chaku answers."""
    answer, scheme = _get(port, "/health")
    if answer is None or not answer.keys() >= {"status", "version", "models"}:
        return None
    return {**answer, "url": f"{scheme}://127.0.0.1:{port}"}


def read_text(path: str) -> str:
    """A file's text; empty where there is none, as in /proc on another system."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _get(port: int, path: str) -> tuple[dict[str, Any] | None, str]:
    """The JSON object that a server on this machine answers, and the scheme; None for anything else.

    A certificate is not checked: it names the public host, and over loopback HTTP would be trusted as well.
    """
    key = environment("OPENAI_API_KEY") or ""
    headers = {"Authorization": f"Bearer {key}"} if key.startswith(TOKEN_PREFIX) else {}
    for scheme in ("http", "https"):
        if scheme == "http":
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_S)
        else:
            unchecked = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's certificates, which take time
            unchecked.check_hostname, unchecked.verify_mode = False, ssl.CERT_NONE
            connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=_ANSWER_S, context=unchecked)
        try:
            connection.request("GET", path, headers=headers)
            answer = orjson.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, orjson.JSONDecodeError):
            continue
        finally:
            connection.close()
        return (answer if isinstance(answer, dict) else None), scheme
    return None, "http"


_port_option = click.option(
    "--port",
    metavar="PORT",
    type=click.IntRange(1, MAX_PORT),
    default=DEFAULT_PORT,
    show_default=True,
    help="Where the gateway listens.",
)


@command()
@_port_option
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def ps(port: int, as_json: bool) -> None:
    """Show what is served on this machine.

    Asks the gateway on PORT. If it needs a key, set OPENAI_API_KEY; without a key, only states are shown.
    """
    state = health(port)
    if as_json:
        print_json(_served(port, state))
        return
    if state is None:
        click.echo(f"no chaku answers on port {port}: start one with `chaku serve MODEL`", err=True)
        return
    found = listener(port)
    click.echo(f"{state['url']}  chaku {state['version']}{f', process {found.pid}' if found else ''}")
    rows = [["MODEL", "STATE", "CONTEXT", "SLOTS", "RUNNING", "WAITING"]]
    rows += [[_cell(value) for value in row.values()] for row in _served(port, state)["models"]]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _served(port: int, state: dict[str, Any] | None) -> dict[str, Any]:
    """URL, process, version and models of the gateway, or nulls where there is none."""
    if state is None:
        return {"url": None, "pid": None, "version": None, "models": []}
    known = {row["id"]: row for row in (_get(port, "/v1/models")[0] or {}).get("data", ())}
    models = [
        {"name": name, "state": word}
        | {key: known.get(name, {}).get(key) for key in ("context_tokens", "slots", "running", "waiting")}
        for name, word in state["models"].items()
    ]
    found = listener(port)
    pid = found.pid if found else None
    return {"url": state["url"], "pid": pid, "version": state["version"], "models": models}


def _cell(value: object) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


@command()
@_port_option
def stop(port: int) -> None:
    """Stop the gateway on this machine.

    Does the same as Ctrl-C in its terminal: running answers have five seconds to finish.
    """
    if health(port) is None:
        raise UsageError(f"no chaku answers on port {port}", fix="`chaku ps --port PORT` asks at another port")
    found = listener(port)
    if found is None:
        raise ChakuError(f"the process on port {port} can't be seen from here", fix="press Ctrl-C in its terminal")
    os.kill(found.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while read_text(f"/proc/{found.pid}/cmdline"):  # empty for one that has ended and waits for its parent
        if time.monotonic() > deadline:
            raise ChakuError(
                f"process {found.pid} has not ended after {_STOP_S:.0f} s", fix=f"wait, or end it: kill -9 {found.pid}"
            )
        time.sleep(_POLL_S)
    click.echo(f"the gateway on port {port} has stopped (process {found.pid})")
