"""Put files and batches on a gateway."""

from __future__ import annotations

from chaku.http_out import Transport
from chaku.serve.batches.routes import add_batch_routes
from chaku.serve.batches.runner import BatchRunner
from chaku.serve.server import Serving
from chaku.settings import ServeConfig
from chaku.store.database import Store
from chaku.store.leases import LEASE_S


def add_batches(
    serving: Serving, store: Store, base_url: str, config: ServeConfig, *, lease_s: float = LEASE_S
) -> None:
    """Serve files and batches, which a gateway that keeps nothing refuses. Claims on batches hold for `lease_s`."""

    def transport_for(key_id: str | None) -> Transport:
        headers = {"Authorization": f"Bearer {serving.access.inside_token(key_id)}"}
        certificate = serving.tls.fingerprint if serving.tls else None
        return Transport(base_url, who="this gateway", headers=headers, certificate=certificate)

    runner = None
    if config.keep:
        runner = BatchRunner(
            store, serving.table, serving.access, transport_for, parallel=config.batch_parallel, lease_s=lease_s
        )
        serving.companions.append(runner)
    add_batch_routes(serving.app, runner)
