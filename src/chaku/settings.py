"""The settings of `chaku serve`, and of each model that it serves."""

from __future__ import annotations

import ipaddress
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from chaku.complaints import in_words
from chaku.config import (
    DEFAULT_PORT,
    HOST_NAME,
    MAX_COUNT,
    MAX_PORT,
    MAX_WAIT_S,
    ORIGIN,
    Frozen,
    ModelName,
)
from chaku.errors import ConfigError
from chaku.flag_values import contestant_of, days_of, image_limit_of, moderation_of, pair_of, price_of
from chaku.policies import GuestPolicy, ImageLimits, ModerationPolicy, Price, Retention

MAX_CONTEXT = 100_000_000
MAX_THREADS = 512
"""As llama.cpp takes them at most (GGML_MAX_N_THREADS)."""
MAX_CHARACTERS = 100_000_000
RoutingPolicy = Literal["prefix", "least_loaded", "round_robin", "lottery"]


AUTO = "auto"
"""The value of `engine` that leaves the choice to chaku."""


class ModelConfig(Frozen):
    """One served model. Fields that an engine of that kind can't honour are refused at start."""

    source: str
    """Built-in name, path to a .gguf or a model's folder, hf:org/name[:file][@rev], pypi:package==version,
    http(s)://host/v1 or scripted:[file]."""
    name: ModelName | None = None
    """What clients call it; by default derived from the source."""
    engine: str = AUTO
    """Engine that serves it, by its name in the table of engines; auto: the one for its source and this machine."""
    engine_args: dict[str, str | int | float | bool] = Field(default_factory=dict)
    """Options of that engine alone, by the names that its table in docs/engines.md gives."""
    engine_python: Path | None = None
    """Python of an environment that has the engine, in place of the one that `chaku engines install` makes."""
    gpus: int | None = Field(None, ge=1, le=64)
    """GPUs that hold the model together (tensor parallel). Default: one."""
    context: int | None = Field(None, ge=64, le=MAX_CONTEXT)
    """Tokens that ONE request may use, prompt and answer together. Default: what the model was trained for, as far as
    memory allows."""
    slots: int | None = Field(None, ge=1, le=256)
    """Requests decoded at the same time; more wait in the queue."""
    threads: int | None = Field(None, ge=1, le=MAX_THREADS)
    """CPU threads for decoding. Default: physical cores."""
    spin: bool = False
    """Let the engine's threads spin while they wait for each other: faster on an idle machine, but answers stall for
    seconds as soon as another program needs a core."""
    gpu_layers: int | None = Field(None, ge=0, le=MAX_COUNT)
    """Layers put on the GPU. Default: all that fit."""
    force: bool = False
    """Serve the model even if the memory plan says that it does not fit."""
    kv_type: Literal["f16", "q8_0"] = "f16"
    """Number format of the key-value cache: q8_0 takes half the memory at the same speed, and rounds the values."""
    quant: Literal["f16", "bf16", "q8_0", "q4_0"] | None = None
    """Number format of the weights, requantised once and kept. Default: as the file is; q8_0 for a folder."""
    template: str | None = None
    """A built-in chat template (vicuna_v1.1, chatml, ...) instead of the one in the file."""
    lora: tuple[Path, ...] = ()
    """GGUF LoRA adapters applied to the model."""
    adapters: dict[ModelName, Path] = Field(default_factory=dict)
    """peft adapters on this model, each served under its own name beside it."""
    mmproj: Path | None = None
    """GGUF image projector that goes with a vision model."""
    embeddings: bool = True
    """Serve /v1/embeddings from this model too (mean of the last hidden states unless the file says otherwise)."""
    idle_unload_s: float | None = Field(None, gt=0, le=MAX_WAIT_S)
    """Stop the engine after so many seconds without a request; the next request starts it again."""
    queue_limit: int = Field(64, ge=0, le=MAX_COUNT)
    """Requests that may wait for a slot; one more gets a 429."""
    deadline_s: float = Field(600.0, gt=0, le=MAX_WAIT_S)
    """Longest time for one request, waiting included."""
    fallback: ModelName | None = None
    """Model that answers while every replica of this one is down; the header x-chaku-fallback says so."""
    api_key_env: str | None = None
    """Environment variable that holds the key sent to an upstream."""
    upstream_model: ModelName | None = None
    """The model's name at the upstream, if it differs."""
    extensions: tuple[str, ...] = ()
    """Sampling extensions (top_k, min_p, repetition_penalty, ignore_eos) that the upstream honours."""

    @field_validator("engine_args", mode="before")
    @classmethod
    def _read_engine_args(cls, args: Any) -> Any:
        """On the command line an argument is KEY=VALUE."""
        return dict(pair_of(arg, "KEY=VALUE") for arg in args) if isinstance(args, list | tuple) else args

    @field_validator("adapters", mode="before")
    @classmethod
    def _read_adapters(cls, adapters: Any) -> Any:
        """On the command line an adapter is NAME=FOLDER."""
        return dict(pair_of(one, "NAME=FOLDER") for one in adapters) if isinstance(adapters, list | tuple) else adapters


class Contestant(Frozen):
    """A model as it stands in an arena: one model can stand there under several settings."""

    name: ModelName
    model: ModelName
    """The name under which it is served."""
    system: str | None = Field(None, max_length=20_000)
    """The system prompt."""
    sampling: dict[str, Any] = Field(default_factory=dict)
    """Request parameters, such as temperature."""

    @classmethod
    def of_flag(cls, text: str) -> Contestant:
        """As the command line has it: MODEL, NAME=MODEL or {name: NAME, model: MODEL, ...}. Raises ConfigError."""
        try:
            return cls.model_validate(contestant_of(text))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ConfigError(f"the contestant {text[:80]!r}: {place}: {in_words(first)}") from None
        except ValueError as error:
            raise ConfigError(str(error)) from None


_HEADERS_OF_CLIENTS = frozenset({"authorization", "cookie", "host", "origin", "x-api-key", "x-chaku"})
"""Headers that a browser or a client sets for chaku itself: a proxy can name no user in them."""


class ServeConfig(Frozen):
    """All settings of `chaku serve`."""

    models: tuple[ModelConfig, ...] = ()
    """Models to serve, each with the keys of a model (see below)."""
    host: str = "127.0.0.1"
    """Address to bind. Anything but loopback needs an API key in the store."""
    port: int = Field(DEFAULT_PORT, ge=0, le=MAX_PORT)
    """0 takes a free one."""
    allowed_hosts: tuple[str, ...] = ()
    """Further Host names to answer to (a reverse proxy's name)."""
    public_url: str | None = None
    """Address at which others reach this gateway, such as https://chat.example. Needs an API key in the store."""
    tls_cert: Path | None = None
    """PEM file with the server's certificate, followed by intermediate ones. chaku then serves HTTPS."""
    tls_key: Path | None = None
    """PEM file with its private key."""
    joins: bool = True
    """Let workers on other machines join, with a join token. Without any key, workers on this machine may join too."""
    fastchat_networks: tuple[str, ...] = ()
    """Networks (CIDR) from which FastChat's workers and servers may use /fastchat, without any key. Default: none."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the API from a browser."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks (CIDR) of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    user_header: str | None = None
    """Header in which a trusted proxy names the user whom it has logged in, such as X-Forwarded-User. Each such user
    has chats of its own on the page. From any other address the header is ignored."""
    max_connections: int = Field(1000, ge=1, le=MAX_COUNT)
    """Clients connected at the same time. For one more, the connection that has been idle longest is closed."""
    body_timeout_s: float = Field(30.0, gt=0, le=MAX_WAIT_S)
    """Longest time for a request's body to arrive. Each 64 KiB of it adds a second."""
    routing: RoutingPolicy = "prefix"
    """How a model's replica is chosen: prefix prefers one that has read the prompt's beginning, unless it is busy."""
    continue_answers: bool = False
    """Let another replica continue an answer that broke off. The request's header x-chaku-continue (on, off) wins."""
    score_model: ModelName | None = None
    """Model that answers at /score if several are served and the request names none."""
    batch_parallel: int = Field(2, ge=0, le=MAX_COUNT)
    """Requests of batches (/v1/batches) that run at once, in slots that nobody else wants. 0 leaves batches to other
    gateways of the database."""
    prices: dict[ModelName, Price] = Field(default_factory=dict)
    """Prices of models by name, for limits in dollars and for `chaku keys usage`. A model without one costs nothing."""
    guests: GuestPolicy | None = None
    """Let visitors use the page without a key, each with limits and chats of their own. Default: not at all."""
    moderation: ModerationPolicy | None = None
    """How prompts and answers are judged. Default: not at all."""
    conversation_turns: int | None = Field(None, ge=1, le=MAX_COUNT)
    """User messages that one chat may have."""
    input_characters: int | None = Field(None, ge=1, le=MAX_CHARACTERS)
    """Characters that the last user message may have."""
    image_limits: ImageLimits = Field(default_factory=ImageLimits)
    """The largest images that a request may carry. Metadata (place, time, camera) is always taken out of them."""
    keep: bool = True
    """Keep what is said. If false, chats, battles, votes and thumbs are in memory alone, for a day at most. The page
    says so. Usage is counted without contents, and batches are refused."""
    retention_days: Retention = Field(default_factory=Retention)
    """Days after which chats, battles, usage, the audit log and files are deleted. Default: they are kept."""
    ui: bool = True
    """Serve the page beside the API."""
    runs: str = "runs"
    """Folder whose training runs the page shows, to the local user and to admins."""
    evals: str = "evals"
    """Folder whose evaluation runs the page shows, to the local user and to admins."""
    contestants: tuple[Contestant, ...] = ()
    """Who stands in the arena. Default: every model that answers chats, under the settings recommended for it."""
    arena_battles_per_hour: int = Field(60, ge=1, le=MAX_COUNT)
    """Battles that one visitor may begin."""
    arena_turns: int = Field(10, ge=1, le=MAX_COUNT)
    """Turns of one battle."""
    database: str | None = None
    """SQLAlchemy URL. Default: CHAKU_DATABASE, or an SQLite file in the data folder."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """The least important messages to log."""
    traces: bool = False
    """Send traces of requests by OpenTelemetry, without their contents. OTEL_EXPORTER_OTLP_ENDPOINT says where to."""

    @field_validator("contestants", mode="before")
    @classmethod
    def _read_flags(cls, contestants: Any) -> Any:
        """On the command line a contestant is NAME=MODEL, or a mapping as in YAML."""
        return tuple(contestant_of(one) if isinstance(one, str) else one for one in contestants or ())

    @field_validator("guests", mode="before")
    @classmethod
    def _read_guests(cls, guests: Any) -> Any:
        """On the command line guests are let in or not; a YAML file may have a policy."""
        return (GuestPolicy() if guests else None) if isinstance(guests, bool) else guests

    @field_validator("moderation", mode="before")
    @classmethod
    def _read_moderation(cls, moderation: Any) -> Any:
        """On the command line it is the word rules, the URL of an API, or a mapping as in YAML."""
        return moderation_of(moderation) if isinstance(moderation, str) else moderation

    @field_validator("prices", mode="before")
    @classmethod
    def _read_prices(cls, prices: Any) -> Any:
        """On the command line a price is NAME=PROMPT/COMPLETION."""
        return prices if isinstance(prices, dict) else dict(price_of(text) for text in prices)

    @field_validator("models", mode="before")
    @classmethod
    def _read_models(cls, models: Any) -> Any:
        """In the environment a model is its source."""
        if not isinstance(models, tuple):
            return models
        return tuple({"source": one} if isinstance(one, str) else one for one in models)

    @field_validator("retention_days", "image_limits", mode="before")
    @classmethod
    def _read_kinds(cls, given: Any, info: ValidationInfo) -> Any:
        """On the command line it is KIND=NUMBER; in the environment there are spaces between several."""
        read = days_of if info.field_name == "retention_days" else image_limit_of
        given = given.split() if isinstance(given, str) else given
        return dict(map(read, given)) if isinstance(given, tuple | list) else given

    @field_validator("contestants")
    @classmethod
    def _differ(cls, contestants: tuple[Contestant, ...]) -> tuple[Contestant, ...]:
        names = [contestant.name for contestant in contestants]
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two contestants are called {repeated!r}")
        return contestants

    @field_validator("allowed_hosts")
    @classmethod
    def _are_names(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not re.fullmatch(HOST_NAME, host):
                raise ValueError(f"{host!r} is not a host name: write it without scheme and port, such as gpu-box.lan")
        return hosts

    @field_validator("public_url")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is not None and not re.fullmatch(f"https?://{ORIGIN.partition('://')[2]}", url):
            raise ValueError(f"{url!r} is not an address: write scheme and host, such as https://chat.example")
        return url

    @field_validator("trusted_proxies", "fastchat_networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        for network in networks:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ValueError(
                    f"{network!r} is not a network: write an address or CIDR, such as 10.0.0.0/8"
                ) from None
        return networks

    @field_validator("user_header")
    @classmethod
    def _is_header_of_a_proxy(cls, header: str | None, known: ValidationInfo) -> str | None:
        if header is None:
            return None
        if not re.fullmatch(r"[A-Za-z0-9-]+", header) or header.lower() in _HEADERS_OF_CLIENTS:
            raise ValueError(f"{header!r} is no header for names of users: write one such as X-Forwarded-User")
        if not known.data.get("trusted_proxies"):
            raise ValueError("only a trusted proxy may name users: add its address with --trusted-proxy")
        return header

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(ORIGIN, origin):
                raise ValueError(f"{origin!r} is not an origin: write scheme and host, such as https://app.example")
        return origins
