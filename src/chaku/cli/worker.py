"""`chaku worker`: one model, served for the gateways that it joins."""

from __future__ import annotations

import contextlib
import re
import socket
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click
import uvloop

from chaku import logs, packages
from chaku.cli.help_page import command
from chaku.cli.progress.fetching import fetching
from chaku.cli.serve import end_with_parent, name_models
from chaku.cli.serve_options import model_options, tls_options
from chaku.config import Loaded, ServeConfig, environment, load
from chaku.engines.fetched import Opener
from chaku.engines.llamacpp.resources import Resources
from chaku.engines.opening import check_settings, engine_kind
from chaku.errors import UsageError
from chaku.models.plan.free_memory import available_bytes
from chaku.models.reference import BuiltIn, HubFile
from chaku.protocol.fleet import WORKER_NAME
from chaku.serve import server
from chaku.serve.access import is_loopback_host
from chaku.serve.fleet.routes import add_worker_route
from chaku.serve.table import ModelTable
from chaku.serve.worker.companion import Identity, Throughput, Worker, WorkerKey, new_key

TOKEN_VARIABLE = "CHAKU_JOIN_TOKEN"  # noqa: S105 - the variable's name
_SECTIONS = {"The engine": "engine", "A MODEL that is another API": "api_key_env", "Other": "log_level"}


@command(sections=_SECTIONS)
@click.argument("model", metavar="[NAME=]MODEL")
@click.option("--join", "gateways", metavar="URL", multiple=True, required=True, help="Gateway to join; repeatable.")
@click.option("--token", metavar="TOKEN", show_default=TOKEN_VARIABLE, help="Join token; other users may see options.")
@click.option("--advertise", metavar="URL", show_default="found", help="Address at which gateways reach this worker.")
@click.option("--name", metavar="NAME", show_default="host and port", help="Name in the table of workers.")
@click.option("--host", metavar="ADDRESS", show_default="as the gateway's", help="Address to bind.")
@click.option("--port", metavar="PORT", show_default="a free one", type=int, help="Port to bind.")
@tls_options
@model_options
@click.option(
    "--log-level",
    show_default="INFO",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]),
    help="Least important messages to log.",
)
@click.option("--exit-with-parent", is_flag=True, hidden=True, help="End when the parent process is gone.")
def worker(
    model: str,
    gateways: tuple[str, ...],
    token: str | None,
    advertise: str | None,
    name: str | None,
    host: str | None,
    port: int | None,
    log_level: str | None,
    exit_with_parent: bool,
    tls_cert: Path | None,
    tls_key: Path | None,
    **flags: Any,
) -> None:
    """Serve a model for gateways on this machine or others.

    MODEL is what `chaku serve` takes. The gateway calls the worker back, so it must reach it: by the address that is
    found, by the one given with --advertise, or through a tunnel.
    """
    if exit_with_parent:
        end_with_parent()
    joins = tuple(_gateway_url(url) for url in gateways)
    if name is not None and not re.fullmatch(WORKER_NAME, name):
        raise UsageError(
            f"--name is {name!r}, which is not a name", fix="take letters, digits, dots and dashes: --name gpu-1"
        )
    asked = _checked_advertise(advertise)
    given = {key: value for key, value in flags.items() if value is not None and value != ()}
    settings: dict[str, Any] = {
        "models": ({"source": model, **given},),
        "host": host or _bind_host(joins, asked),
        "port": port if port is not None else (urlsplit(asked).port or 0) if asked else 0,
        "allowed_hosts": tuple({urlsplit(asked).hostname}) if asked else (),
        "log_level": log_level,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "joins": False,
        "ui": False,
    }
    _run(load(ServeConfig, None, settings), joins, token or environment(TOKEN_VARIABLE), asked, name)


def _run(
    loaded: Loaded[ServeConfig], gateways: tuple[str, ...], token: str | None, advertise: str | None, name: str | None
) -> None:
    config = loaded.config
    logs.set_up(config.log_level)
    ((model, settings, reference),) = name_models(config)
    check_settings(model, settings, reference)
    needs_file = engine_kind(model, settings, reference).needs_file
    if needs_file:
        packages.require(*(["hub"] if isinstance(reference, HubFile) else []), "local")

    table, key, throughput = ModelTable(), WorkerKey(new_key()), Throughput()
    serving = server.build(config, table, key, throughput.record)
    listener = server.bind(config.host, config.port)
    port = listener.getsockname()[1]
    identity = Identity(
        name=name or _default_name(port),
        key=key,
        port=port,
        scheme="https" if serving.tls else "http",
        certificate=serving.tls.fingerprint if serving.tls else None,
        advertise=_with_port(advertise, port) if advertise else None,
        source=reference.row.name if isinstance(reference, BuiltIn) else "",
        generation=str(time.time_ns()),
    )
    add_worker_route(serving.app, identity.name, identity.generation, key.token)

    def new_engine() -> Any:
        resources = Resources(available_bytes(), num_local=1 if needs_file else 0)
        return Opener(resources, fetching).engine(model, settings, reference)

    def announce() -> None:
        click.echo(f"worker {identity.name} serves {model} on port {port}; Ctrl-C drains and stops it", err=True)

    with contextlib.closing(listener):
        served = table.add(new_engine(), settings, created=int(time.time()))
        Worker(identity, serving, served, throughput, new_engine, gateways, token)
        uvloop.run(server.run(serving, listener, announce))


def _gateway_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.rstrip("/") not in ("", "/v1"):
        raise UsageError(
            f"--join is {url!r}, which is not a gateway's address", fix="write it as --join http://gateway:8000"
        )
    return urlunsplit((parts.scheme, parts.netloc, "", "", ""))


def _checked_advertise(url: str | None) -> str | None:
    if url is None:
        return None
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path not in ("", "/"):
        raise UsageError(
            f"--advertise is {url!r}, which is not an address", fix="write it as --advertise http://10.0.0.7:9001"
        )
    return urlunsplit((parts.scheme, parts.netloc, "", "", ""))


def _with_port(url: str, port: int) -> str:
    parts = urlsplit(url)
    if parts.port is not None:
        return url
    return f"{url}:{443 if parts.scheme == 'https' else port}"


def _bind_host(gateways: tuple[str, ...], advertise: str | None) -> str:
    """Loopback where nobody else has to reach it, otherwise every address: callers need the worker's key."""
    hosts = [urlsplit(advertise).hostname or ""] if advertise else [urlsplit(url).hostname or "" for url in gateways]
    if not all(is_loopback_host(host) for host in hosts):
        return "0.0.0.0"  # noqa: S104 - it needs the worker's key
    return hosts[0] if advertise and hosts[0] != "localhost" else "127.0.0.1"


def _default_name(port: int) -> str:
    host = re.sub(r"[^A-Za-z0-9.-]", "-", socket.gethostname()).strip(".-")[:50] or "worker"
    return f"{host}-{port}"
