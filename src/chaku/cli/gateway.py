"""A gateway with its store, page and batches, from the settings of `chaku serve`."""

from __future__ import annotations

import asyncio
import datetime as dt
import socket
from functools import partial
from pathlib import Path
from typing import Any

import click

from chaku.serve import server
from chaku.serve.access import is_loopback_host
from chaku.serve.app import describe_model
from chaku.serve.batches.mount import add_batches
from chaku.serve.exchange import Exchange
from chaku.serve.fleet.routes import NoteAdmin
from chaku.serve.gateway import UsageSink
from chaku.serve.retention import RetentionJob
from chaku.serve.server import Serving
from chaku.serve.table import ModelTable
from chaku.serve.traces import open_traces
from chaku.settings import ServeConfig
from chaku.store import audit, retention
from chaku.store.counters import Counters
from chaku.store.database import Store, open_memory_store
from chaku.store.keyring import KeyRing
from chaku.store.usage import UsageRow
from chaku.store.usage_writer import UsageWriter
from chaku.web.application import mount
from chaku.web.arena import ArenaSettings
from chaku.web.page import NOT_KEPT, PageFiles


def open_gateway(
    config: ServeConfig, table: ModelTable, store: Store, keys: KeyRing, usage: UsageWriter
) -> tuple[Serving, socket.socket, str]:
    """The gateway over `table`, the socket on which it listens, and its URL. Notes its rules in the audit log.

    Raises ConfigError for settings that would let strangers in, UsageError for an address that can't be bound.
    """
    audit.record_settings(store, _rules(config))
    traces = open_traces() if config.traces else None
    serving = server.build(config, table, keys, recorder(usage), Counters(store), noting_admins(store), traces=traces)
    listener = server.bind(config.host, config.port)  # before anything is fetched: a mistake shows at once
    port = listener.getsockname()[1]
    own_host = "127.0.0.1" if config.host in ("0.0.0.0", "::") else config.host  # noqa: S104 - not bound here
    scheme = "https" if serving.tls else "http"
    url = f"{scheme}://[{own_host}]:{port}" if ":" in own_host else f"{scheme}://{own_host}:{port}"
    if serving.own_api is not None:
        serving.own_api.base_url = f"{url}/v1"
    said = store if config.keep else open_memory_store()
    serving.companions.append(retention_job(config, store, said))
    add_batches(serving, store, f"{url}/v1", config)
    if config.ui:
        _mount_page(serving, store, said, keys, f"{url}/v1", config)
    return serving, listener, url


def _mount_page(serving: Serving, store: Store, said: Store, keys: KeyRing, base_url: str, config: ServeConfig) -> None:
    page = PageFiles(note=None if config.keep else NOT_KEPT)
    if page.missing is not None:
        click.echo(f"there is an API but no page: {page.missing}", err=True)

    def models() -> list[Any]:
        return [describe_model(row) for row in serving.table]

    application = mount(
        serving.app,
        store,
        keys,
        serving.access,
        models=models,
        base_url=base_url,
        page=page,
        runs=Path(config.runs),
        evals=Path(config.evals),
        arena=ArenaSettings(config.contestants, config.arena_battles_per_hour, config.arena_turns),
        fleet=serving.fleet,
        check_prompt=serving.moderator.check_prompt if serving.moderator else None,
        guests=config.guests,
        user_header=config.user_header,
        certificate=serving.tls.fingerprint if serving.tls else None,
        said=said,
        images=config.image_limits,
    )
    serving.companions.append(application)


def retention_job(config: ServeConfig, store: Store, said: Store) -> RetentionJob:
    """Deletes what is older than the settings allow, guests who stay away included."""
    guest_days = config.guests.keep_days if config.guests else None
    return RetentionJob(partial(retention.forget, store, said, config.retention_days, guest_days=guest_days))


def noting_admins(store: Store) -> NoteAdmin:
    """Writes what admins do through the API into the audit log."""

    async def note_admin(key_id: str | None, action: str, subject: str) -> None:
        await asyncio.to_thread(audit.record, store, action, subject, by=audit.Actor("api", key_id))

    return note_admin


_RULES = {"public_url", "user_header", "cors_origins", "guests", "joins", "keep", "retention_days"}


def _rules(config: ServeConfig) -> dict[str, Any]:
    """What the audit log says of a gateway's rules for its callers.

    Patterns are left out, being contents, and so are addresses: no file of the database holds any.
    """
    moderation = config.moderation
    return {
        **config.model_dump(mode="json", include=_RULES),
        "is_on_loopback": is_loopback_host(config.host),
        "num_trusted_proxies": len(config.trusted_proxies),
        "num_fastchat_networks": len(config.fastchat_networks),
        "moderation": moderation
        and {
            **moderation.model_dump(mode="json", exclude={"patterns", "url", "api_key_env"}),
            "patterns": sorted(moderation.patterns),
            "url": moderation.url is not None,
        },
    }


def recorder(usage: UsageWriter) -> UsageSink:
    """Hands finished requests to the usage writer as rows."""

    def record(exchange: Exchange) -> None:
        usage.put(
            UsageRow(
                time=dt.datetime.fromtimestamp(exchange.arrived_at, dt.UTC),
                model=exchange.model,
                route=exchange.route,
                status=exchange.status,
                duration_s=exchange.duration_s,
                request_id=exchange.request_id,
                key_id=exchange.key_id,
                prompt_tokens=exchange.prompt_tokens,
                cached_tokens=exchange.cached_tokens,
                completion_tokens=exchange.completion_tokens,
                dollars=exchange.dollars,
                time_to_first_token_s=exchange.first_token_s,
            )
        )

    return record
