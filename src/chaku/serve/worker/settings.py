"""The settings of `chaku worker`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from chaku.config import MAX_PORT, Frozen
from chaku.settings import ModelConfig


class WorkerConfig(Frozen):
    """Everything `chaku worker` can be told."""

    model: ModelConfig
    """The one model that it serves: a row of a gateway's `models:`."""
    join: tuple[str, ...] = Field(min_length=1)
    """Gateways to join, such as http://gateway:8000."""
    advertise: str | None = None
    """Address at which gateways reach this worker. Default: this machine's address on the way to them."""
    name: str | None = None
    """Name in the table of workers. Default: host and port."""
    host: str | None = None
    """Address to bind. Default: loopback for a gateway on this machine, otherwise every address."""
    port: int | None = Field(None, ge=0, le=MAX_PORT)
    """Default: a free one."""
    gateway_certificate: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    """sha256 of the gateways' certificate, in hex, where no authority signed it: no other is accepted."""
    spot_notice: bool = False
    """Drain when the cloud (AWS, Google, Azure) says that it takes this machine back."""
    tls_cert: Path | None = None
    """PEM file with the certificate that the worker shows: HTTPS."""
    tls_key: Path | None = None
    """PEM file with its private key."""
    max_connections: int = Field(1000, ge=1)
    """Connections at the same time: a gateway opens one for each answer that it asks for. More answers wait."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    traces: bool = False
    """Send traces of requests by OpenTelemetry, without their contents. OTEL_EXPORTER_OTLP_ENDPOINT says where to."""
