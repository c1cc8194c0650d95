"""The settings of a fleet.yaml: one gateway, and pools of workers that join it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, Field, field_validator, model_validator

from chaku.config import MAX_PORT, Frozen, load
from chaku.errors import UsageError
from chaku.models.reference import parse
from chaku.nearest import did_you_mean
from chaku.settings import ModelConfig, ServeConfig

Place = Literal["local", "ray", "k8s", "sky"]
NAME = r"[a-z0-9](?:[a-z0-9-]{0,38}[a-z0-9])?"
"""Of a fleet: also the beginning of names in Kubernetes and SkyPilot, which allow no more."""
_WORKER_PORT = 9001


def _is_url(url: str) -> str:
    if not re.fullmatch(r"https?://[A-Za-z0-9_.:\[\]-]+/?", url):
        raise ValueError(f"{url!r} is not an address: write scheme, host and port, such as http://gateway:8000")
    return url.rstrip("/")


GatewayUrl = Annotated[str, AfterValidator(_is_url)]


class Pool(ModelConfig):
    """Workers that serve one model: the settings of a model, how many workers, and what one of them needs."""

    replicas: int = Field(1, ge=0, le=1000)
    """Workers at the start, and the fewest while `max_replicas` is set."""
    max_replicas: int | None = Field(None, ge=1, le=1000)
    """Most workers: more start while requests wait, and go when they have been idle for a minute (local and ray)."""
    cpus: float | None = Field(None, gt=0)
    """CPU cores that one worker gets (ray, k8s, sky)."""
    memory_gb: float | None = Field(None, gt=0)
    """Memory that one worker gets, in GB (ray, k8s, sky)."""
    gpus: int = Field(0, ge=0, le=64)
    """GPUs that one worker gets (ray, k8s, sky)."""
    gpu: str | None = None
    """Kind of GPU, such as L4 or A100-80GB (ray, sky)."""
    price_per_hour: float | None = Field(None, ge=0)
    """Dollars for one worker and hour, for the plan. Default: the price list's range for its GPUs."""

    @property
    def model(self) -> str:
        """The model's name for clients."""
        argument = parse(self.source)
        name = self.name or argument.name
        assert name is not None, "checked when the file was read"
        return name

    @property
    def settings(self) -> dict[str, Any]:
        """The part that is the model's: what a worker's file has under `model:`."""
        given = self.model_dump(mode="json", exclude_unset=True, include=set(ModelConfig.model_fields))
        return {**given, "source": parse(self.source).source, "name": self.model}

    @model_validator(mode="after")
    def _is_whole(self) -> Pool:
        if self.name is None and parse(self.source).name is None:
            raise ValueError(f"{self.source} needs a name for clients: add the key name")
        if self.max_replicas is not None and self.max_replicas < self.replicas:
            raise ValueError(f"max_replicas is {self.max_replicas}, below replicas, which is {self.replicas}")
        if self.gpu is not None and not self.gpus:
            raise ValueError("gpu names a kind, and gpus is 0: set gpus to the number that one worker gets")
        return self


class RayPlace(Frozen):
    """Where Ray runs."""

    address: str | None = None
    """Of the Ray cluster, HOST:PORT; `auto` finds the one of this machine. Default: a new one on this machine."""


class KubernetesPlace(Frozen):
    """What the Kubernetes manifests name."""

    image: str = "chaku:latest"
    """Container image with chaku installed."""
    namespace: str = "default"
    secret: str = "chaku"  # noqa: S105 - a name
    """Secret with the keys `join-token` and `database` (a PostgreSQL URL in which callers' keys are)."""
    service_type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """How the gateway is reached from outside."""
    cache_claim: str | None = None
    """PersistentVolumeClaim for fetched models. Default: each pod fetches for itself."""
    node_selector: dict[str, str] = Field(default_factory=dict)
    """Labels of the nodes on which workers run."""


class SkyPlace(Frozen):
    """Where SkyPilot starts workers, and which gateway they join."""

    gateway: GatewayUrl | None = None
    """Address of a running gateway, as the workers reach it. Needed with --on sky."""
    spot: bool = True
    """Take spot machines: cheaper, and taken away at two minutes' notice."""
    infra: tuple[str, ...] = ()
    """Places to look, as cloud/region/zone; none means anywhere."""
    max_price: float | None = Field(None, gt=0)
    """Most dollars an hour for one machine."""
    disk_gb: int = Field(100, ge=20)
    """Disk of one machine, in GB."""
    advertise: str = f"http://$SKYPILOT_NODE_IPS:{_WORKER_PORT}"
    """Address at which the gateway reaches a worker, as a shell word of the machine; it names the port too."""
    port: int = Field(_WORKER_PORT, ge=1, le=MAX_PORT)
    """Port that a worker binds."""
    secrets: tuple[str, ...] = ()
    """Further variables to hand on, by name, such as HF_TOKEN."""
    setup: str | None = None
    """Shell lines that install chaku, in place of ours."""


class FleetConfig(Frozen):
    """Everything a fleet.yaml can say."""

    name: str = "fleet"
    """Tells fleets apart: lower-case letters, digits and dashes."""
    gateway: ServeConfig = Field(default_factory=ServeConfig)
    """The settings of `chaku serve`."""
    workers: tuple[Pool, ...] = Field(min_length=1)
    """One entry per model."""
    drain_s: float = Field(60.0, ge=0)
    """Longest time that a worker may take to finish its requests when it is asked to end."""
    ray: RayPlace = Field(default_factory=RayPlace)
    kubernetes: KubernetesPlace = Field(default_factory=KubernetesPlace)
    sky: SkyPlace = Field(default_factory=SkyPlace)

    @field_validator("name")
    @classmethod
    def _is_name(cls, name: str) -> str:
        if not re.fullmatch(NAME, name):
            raise ValueError(f"{name!r} is not a name: take up to 40 lower-case letters, digits and dashes")
        return name

    @model_validator(mode="after")
    def _fits(self) -> FleetConfig:
        names = [pool.model for pool in self.workers]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two entries of workers serve {repeated!r}: give one another name, or add to replicas")
        if not self.gateway.joins:
            raise ValueError("gateway.joins is false, and then no worker may join")
        return self

    def pool(self, model: str) -> Pool:
        """The pool of a model. Raises UsageError with the nearest name."""
        known = {pool.model: pool for pool in self.workers}
        if model not in known:
            fix = did_you_mean(model, known, f"models of {self.name}: {', '.join(known)}")
            raise UsageError(f"no workers of fleet {self.name!r} serve {model!r}", fix=fix)
        return known[model]


def read_fleet(file: Path) -> FleetConfig:
    """A fleet.yaml, checked. Raises ConfigError that names the key, the value and the nearest known key."""
    return load(FleetConfig, file).config


def as_yaml(settings: dict[str, Any]) -> str:
    """Settings as a YAML file, in their order."""
    return yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def worker_names(fleet: FleetConfig, pool: Pool, number: int) -> list[str]:
    """The names of a pool's first workers: FLEET-MODEL-1 and so on, as the table of workers allows them."""
    return [f"{stem(fleet, pool)}-{index}" for index in range(1, number + 1)]


def stem(fleet: FleetConfig, pool: Pool) -> str:
    """FLEET-MODEL, unique in a fleet, in the letters and length that worker names, Kubernetes and SkyPilot allow."""
    names = [_plain(other.model) for other in fleet.workers]
    plain = _plain(pool.model)
    if names.count(plain) > 1:
        plain = f"{plain[:12]}-p{fleet.workers.index(pool) + 1}"
    return f"{fleet.name[:24]}-{plain}".strip("-")


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:20].strip("-") or "model"
