"""`chaku worker`: one model, served for the gateways that it joins."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import click
import uvloop

from chaku import logs, spot_notice
from chaku.cli.help_page import command
from chaku.cli.progress.fetching import fetching
from chaku.cli.serve import describe_choice, end_with_parent, name_models, require_installed
from chaku.cli.serve_options import (
    FLAGS,
    PER_MODEL,
    max_connections_option,
    model_options,
    tls_options,
    traces_option,
)
from chaku.config import JOIN_TOKEN_VARIABLE, environment, load
from chaku.engines.fetched import Opener
from chaku.engines.llamacpp.resources import Resources
from chaku.engines.opening import choose_engine
from chaku.errors import RunInterrupted, UsageError
from chaku.models.plan.free_memory import available_bytes
from chaku.models.reference import BuiltIn
from chaku.protocol.fleet import WORKER_NAME
from chaku.serve import server
from chaku.serve.access import is_loopback_host
from chaku.serve.fleet.routes import add_worker_route
from chaku.serve.table import ModelTable
from chaku.serve.traces import open_traces
from chaku.serve.worker.companion import Identity, Throughput, WorkerCompanion, WorkerKey, new_key
from chaku.serve.worker.settings import WorkerConfig
from chaku.settings import ServeConfig

_FILE = click.Path(path_type=Path)
_NEEDED = {"model": "MODEL", "join": "--join URL"}
_SECTIONS = {"The engine": "engine", "A MODEL that is another API": "api_key_env", "Other": "log_level"}


@command(sections=_SECTIONS)
@click.argument("model", metavar="[[NAME=]MODEL]", required=False)
@click.option("--config", "config_file", metavar="FILE", type=_FILE, help="YAML file; flags win over it.")
@click.option("--join", metavar="URL", multiple=True, help="Gateway to join; repeatable.")
@click.option(
    "--token", metavar="TOKEN", show_default=JOIN_TOKEN_VARIABLE, help="Join token. Other users can see options."
)
@click.option("--advertise", metavar="URL", show_default="found", help="Address at which gateways reach this worker.")
@click.option("--name", metavar="NAME", show_default="host and port", help="Name in the table of workers.")
@click.option("--host", metavar="ADDRESS", show_default="as the gateway's", help="Address to bind.")
@click.option("--port", metavar="PORT", show_default="a free one", type=int, help="Port to bind.")
@click.option("--gateway-certificate", metavar="SHA256", help="Accept this self-signed certificate of the gateway.")
@click.option("--spot-notice/--no-spot-notice", default=None, help="Drain when the cloud takes this machine back.")
@tls_options
@max_connections_option
@model_options
@click.option(
    "--log-level",
    show_default="INFO",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]),
    help="Least important messages to log.",
)
@traces_option
@click.option("--exit-with-parent", is_flag=True, hidden=True, help="End when the parent process is gone.")
def worker(
    model: str | None, config_file: Path | None, token: str | None, exit_with_parent: bool, **flags: Any
) -> None:
    """Serve a model for gateways on this machine or others.

    MODEL is what `chaku serve` takes. The gateway calls the worker back: at the address that the worker finds, at the
    one given with --advertise, or through a tunnel.
    """
    if exit_with_parent:
        end_with_parent()
    given = {key: value for key, value in flags.items() if value is not None and value != ()}
    of_model = {key: given.pop(key) for key in PER_MODEL if key in given}
    if model is not None:
        given["model"] = {"source": model, **of_model}
    elif of_model:
        option = next(iter(of_model)).replace("_", "-")
        raise UsageError(f"--{option} is for a MODEL on the command line", fix="name it, or set the key in the file")
    if config_file is None and (missing := [name for key, name in _NEEDED.items() if key not in given]):
        raise UsageError(f"{missing[0]} is missing", fix="chaku worker smollm2-135m --join http://gateway:8000")
    config = load(WorkerConfig, config_file, given, flag_names={**FLAGS, "model": "MODEL"}).config
    if config.name is not None and not re.fullmatch(WORKER_NAME, config.name):
        raise UsageError(
            f"--name is {config.name!r}, which is not a name",
            fix="take letters, digits, dots and dashes: --name gpu-1",
        )
    _run(config, token or environment(JOIN_TOKEN_VARIABLE))


def as_gateway(config: WorkerConfig, gateways: tuple[str, ...], advertise: str | None) -> ServeConfig:
    """The settings of the gateway that the worker is."""
    port = config.port if config.port is not None else (urlsplit(advertise).port or 0) if advertise else 0
    return load(
        ServeConfig,
        None,
        {
            "models": (config.model,),
            "host": config.host or _bind_host(gateways, advertise),
            "port": port,
            "allowed_hosts": tuple({urlsplit(advertise).hostname}) if advertise else (),
            "max_connections": config.max_connections,
            "log_level": config.log_level,
            "traces": config.traces,
            "tls_cert": config.tls_cert,
            "tls_key": config.tls_key,
            "joins": False,
            "ui": False,
        },
    ).config


def _run(asked: WorkerConfig, token: str | None) -> None:
    gateways, advertise = tuple(_gateway_url(url) for url in asked.join), _checked_advertise(asked.advertise)
    config = as_gateway(asked, gateways, advertise)
    logs.set_up(config.log_level)
    ((model, settings, reference),) = name_models(config)
    require_installed(model, settings, reference)
    if settings.adapters:
        raise UsageError("a worker serves one model: --adapter is for `chaku serve`", fix="start a worker per adapter")
    is_local = choose_engine(model, settings, reference).kind.is_local
    click.echo(f"  {describe_choice(model, settings, reference)}", err=True)

    table, key, throughput = ModelTable(), WorkerKey(new_key()), Throughput()
    serving = server.build(config, table, key, throughput.record, traces=open_traces() if config.traces else None)
    listener = server.bind(config.host, config.port)
    port = listener.getsockname()[1]
    identity = Identity(
        name=asked.name or _default_name(port),
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
        resources = Resources(available_bytes(), num_local=1 if is_local else 0)
        return Opener(resources, fetching).engine(model, settings, reference)

    # A notice does what SIGTERM does: the worker drains, and ends.
    notices = spot_notice.watched(asked.spot_notice, lambda _: os.kill(os.getpid(), signal.SIGTERM))

    def announce() -> None:
        watches.append(running.enter_context(notices))  # from here on SIGTERM is heard; before, it would kill
        click.echo(f"worker {identity.name} serves {model} on port {port}; Ctrl-C drains and stops it", err=True)

    watches: list[spot_notice.Watch] = []
    with contextlib.closing(listener), contextlib.ExitStack() as running:
        served = table.add(new_engine(), settings, created=int(time.time()))
        WorkerCompanion(
            identity, serving, served, throughput, new_engine, gateways, token, certificate=asked.gateway_certificate
        )
        uvloop.run(server.run(serving, listener, announce))
    if any(watch.has_notice for watch in watches):
        sys.exit(RunInterrupted.exit_code)  # managed jobs start it again elsewhere; 0 would mean that it is done


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
