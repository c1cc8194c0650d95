"""What a worker and a gateway tell each other: join, beat, leave, and the call-back that proves who is at a URL.

Unknown fields are ignored: the two may be of different versions.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from chaku.config import MAX_COUNT, ModelName

BEAT_EVERY_S = 2.0
MISSED_BEATS = 3
"""So many beats that did not come end a lease."""
WORKER_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}"
MAX_LOG_LINES = 200
MAX_TAKEN = 16
"""A worker remembers so many commands of a gateway."""

WorkerName = Annotated[str, Field(pattern=f"^{WORKER_NAME}$")]
Text = Annotated[str, Field(max_length=300)]
Count = Annotated[int, Field(ge=0, le=MAX_COUNT)]
CommandKind = Literal["drain", "reload", "logs"]


class FleetMessage(BaseModel):
    """Base of every message: immutable, and lenient to newer fields."""

    model_config = ConfigDict(frozen=True)


class ToldCapabilities(FleetMessage):
    """The features that a worker's model honours; the fields are those of `engines.base.Capabilities`."""

    routes: tuple[Literal["chat", "completions", "embeddings"], ...]
    parameters: Annotated[tuple[Text, ...], Field(max_length=200)] = ()
    tools: bool = False
    vision: bool = False
    remote_images: bool = False
    reasoning: bool = False
    labels: bool = False
    context_tokens: int | None = Field(None, ge=1)
    slots: int | None = Field(None, ge=1, le=100_000)
    embedding_slots: int | None = Field(None, ge=0, le=100_000)
    num_parameters: int | None = Field(None, ge=0, le=10**15)
    why_not: Annotated[dict[Text, Text], Field(max_length=200)] = Field(default_factory=dict)


class Beat(FleetMessage):
    """How a worker is. Rates are of the last seconds."""

    name: WorkerName
    generation: Text
    lease: Text = Field("", repr=False)
    """The secret that the gateway answered the join with."""
    state: Literal["joining", "ready", "draining"] = "joining"
    detail: Text = ""
    capabilities: ToldCapabilities | None = None
    """Of its model, once it is ready."""
    running: Count = 0
    """Slots in use, for every gateway that it has joined."""
    waiting: Count = 0
    tokens_per_s: float = Field(0.0, ge=0)
    memory_bytes: int | None = Field(None, ge=0)
    """Resident memory of the worker and its engine."""
    uptime_s: float = Field(0.0, ge=0)
    logs: Annotated[tuple[Annotated[str, Field(max_length=2000)], ...], Field(max_length=MAX_LOG_LINES)] | None = None
    """Its last log lines, where the gateway asked for them."""
    taken: Annotated[tuple[Text, ...], Field(max_length=MAX_TAKEN)] = ()
    """Ids of this gateway's last commands that it has taken."""


class Join(Beat):
    """A worker's request to serve under a gateway."""

    url: Annotated[str, Field(max_length=300)]
    """Where the gateway reaches it: scheme, host and port."""
    key: Annotated[str, Field(min_length=32, max_length=200)] = Field(repr=False)
    """The API key that it takes; every process makes its own."""
    certificate: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """sha256 of its TLS certificate: the gateway talks to no other."""
    model: ModelName
    source: Text = ""
    """The built-in name of its model, if it has one."""
    fallback: ModelName | None = None
    """Model of the gateway that answers while no worker serves this one."""
    host: Text = ""
    device: Text = ""
    version: Text = ""


class Joined(FleetMessage):
    """A gateway's answer to a join."""

    lease: str = Field(repr=False)
    beat_every_s: float = BEAT_EVERY_S
    lease_s: float = BEAT_EVERY_S * MISSED_BEATS


class Command(FleetMessage):
    """What a worker shall do, once, however often it is given."""

    id: Text
    kind: CommandKind


class Heard(FleetMessage):
    """A gateway's answer to a beat: the commands that the worker has not acknowledged yet."""

    commands: tuple[Command, ...] = ()


class Leave(FleetMessage):
    """A worker's last word."""

    name: WorkerName
    generation: Text
    lease: Text = Field(repr=False)


class Proof(FleetMessage):
    """A worker's answer to the call-back."""

    name: WorkerName
    generation: Text
    proof: str


def proof_of(key: str, name: str, generation: str, nonce: str) -> str:
    """HMAC-SHA256 by which the process at a URL proves that it holds the key of a join, without sending the key."""
    content = "\n".join(("chaku-worker", name, generation, nonce))
    return hmac.new(key.encode(), content.encode(), hashlib.sha256).hexdigest()


def is_proof(proof: Proof, key: str, name: str, generation: str, nonce: str) -> bool:
    """Whether a call-back's answer is of the process that sent the join; takes constant time."""
    wanted = proof_of(key, name, generation, nonce)
    return (proof.name, proof.generation) == (name, generation) and hmac.compare_digest(
        proof.proof.encode(), wanted.encode()
    )


def as_json(message: FleetMessage) -> dict[str, Any]:
    """A message as it is sent."""
    return message.model_dump(mode="json", exclude_none=True)
