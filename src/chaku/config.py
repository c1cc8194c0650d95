"""Configuration: where chaku keeps things, what `chaku serve` can be told, and how a YAML file and flags become one.

The environment is read here and nowhere else.
"""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from chaku.complaints import MODEL_NAME, in_words, shown
from chaku.errors import ConfigError
from chaku.nearest import did_you_mean

DEFAULT_PORT, MAX_PORT = 8000, 65535
MAX_MODEL_NAME = 256
ModelName = Annotated[str, Field(pattern=MODEL_NAME, max_length=MAX_MODEL_NAME)]
"""The rule for a model's name, wherever it is given: on the command line, in a file, in a request, on the page."""
ORIGIN = r"[A-Za-z][A-Za-z0-9+.-]*://(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?/?"
HOST_NAME = r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+"
TOKEN_PREFIX = "ck-"  # noqa: S105 - how the token of an API key begins, not one
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "localhost", "::1"})


def cache_dir() -> Path:
    """Pulled models and other things that can be fetched again: CHAKU_CACHE, or chaku/ in the XDG cache."""
    return _directory("CHAKU_CACHE", "XDG_CACHE_HOME", "~/.cache")


def data_dir() -> Path:
    """What can't be made again (the database, chat history): CHAKU_DATA, or chaku/ in the XDG data folder."""
    return _directory("CHAKU_DATA", "XDG_DATA_HOME", "~/.local/share")


def _directory(variable: str, xdg_variable: str, fallback: str) -> Path:
    if own := os.environ.get(variable):
        return Path(own).expanduser()
    return Path(os.environ.get(xdg_variable) or fallback).expanduser() / "chaku"


def database_url() -> str:
    """CHAKU_DATABASE (an SQLAlchemy URL; PostgreSQL works), or an SQLite file in the data folder."""
    return os.environ.get("CHAKU_DATABASE") or f"sqlite:///{data_dir() / 'chaku.db'}"


def environment(name: str) -> str | None:
    """The value of an environment variable, None where it is unset or empty."""
    return os.environ.get(name) or None


RoutingPolicy = Literal["prefix", "least_loaded", "round_robin", "lottery"]


class Frozen(BaseModel):
    """Base of every configuration model: immutable, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(Frozen):
    """One served model. Fields that an engine of that kind can't honour are refused at start."""

    source: str
    """Built-in name, path to a .gguf or a model's folder, hf:org/name[:file][@rev], pypi:package==version,
    http(s)://host/v1 or scripted:[file]."""
    name: ModelName | None = None
    """What clients call it; by default derived from the source."""
    engine: str | None = None
    """Engine that serves it, by its name in the table of engines. Default: the one for its source."""
    context: int | None = Field(None, ge=64)
    """Tokens that ONE request may use, prompt and answer together. Default: what the model was trained for, as far as
    memory allows."""
    slots: int | None = Field(None, ge=1, le=256)
    """Requests decoded at the same time; more wait in the queue."""
    threads: int | None = Field(None, ge=1)
    """CPU threads for decoding. Default: physical cores."""
    spin: bool = False
    """Let the engine's threads spin while they wait for each other: faster on an idle machine, but answers stall for
    seconds as soon as another program needs a core."""
    gpu_layers: int | None = Field(None, ge=0)
    """Layers put on the GPU. Default: all that fit."""
    force: bool = False
    """Serve the model even if the memory plan says that it does not fit."""
    kv_type: Literal["f16", "q8_0"] = "f16"
    """Number type of the key-value cache: q8_0 takes half the memory at the same speed, and rounds what it keeps."""
    quant: Literal["f16", "bf16", "q8_0", "q4_0"] | None = None
    """Numbers of the weights: the model is requantised once and kept. Default: as the file is; q8_0 for a folder."""
    template: str | None = None
    """A built-in chat template (vicuna_v1.1, chatml, ...) instead of the one in the file."""
    lora: tuple[Path, ...] = ()
    """GGUF LoRA adapters applied to the model."""
    mmproj: Path | None = None
    """GGUF image projector that goes with a vision model."""
    embeddings: bool = True
    """Serve /v1/embeddings from this model too (mean of the last hidden states unless the file says otherwise)."""
    idle_unload_s: float | None = Field(None, gt=0)
    """Stop the engine after so many seconds without a request; the next request starts it again."""
    queue_limit: int = Field(64, ge=0)
    """Requests that may wait for a slot; one more gets a 429."""
    deadline_s: float = Field(600.0, gt=0)
    """Longest time for one request, waiting included."""
    fallback: ModelName | None = None
    """Model that answers while every replica of this one is down; the header x-chaku-fallback says so."""
    api_key_env: str | None = None
    """Environment variable that holds the key sent to an upstream."""
    upstream_model: ModelName | None = None
    """The model's name at the upstream, where it differs."""
    extensions: tuple[str, ...] = ()
    """Sampling extensions (top_k, min_p, repetition_penalty, ignore_eos) that the upstream honours."""


class Limits(Frozen):
    """The limits of one caller: a key, or a guest. None or () is no limit."""

    requests_per_minute: int | None = Field(None, ge=1)
    tokens_per_minute: int | None = Field(None, ge=1)
    """Tokens of prompts and answers."""
    tokens_per_day: int | None = Field(None, ge=1)
    """The same within a day (UTC)."""
    dollars_per_month: float | None = Field(None, gt=0)
    """At the prices of the served models, within a month (UTC)."""
    max_tokens: int | None = Field(None, ge=1)
    """Tokens of one answer."""
    models: tuple[ModelName, ...] = ()
    """The models that it may ask; () is every model."""


class Price(Frozen):
    """The price of a model's tokens, in dollars per million."""

    prompt: float = Field(ge=0)
    completion: float = Field(ge=0)
    cached: float | None = Field(None, ge=0)
    """Of prompt tokens that came out of a cache. Default: as `prompt`."""

    def dollars(self, prompt_tokens: float, completion_tokens: float, cached_tokens: int = 0) -> float:
        """The price of one request; `cached_tokens` are a part of `prompt_tokens`."""
        cached = self.prompt if self.cached is None else self.cached
        read = (prompt_tokens - cached_tokens) * self.prompt + cached_tokens * cached
        return (read + completion_tokens * self.completion) / 1_000_000


class GuestPolicy(Frozen):
    """What visitors of the page may do who have no key."""

    limits: Limits = Limits(requests_per_minute=6, tokens_per_day=50_000, max_tokens=1024)
    """Of one guest."""
    new_per_hour: int = Field(20, ge=1)
    """Guests that may begin from one address within an hour."""
    keep_days: int | None = Field(30, ge=1)
    """The chats and battles of a guest are deleted after so many days without a visit. None: they are kept."""


ModerationAction = Literal["off", "warn", "hide", "refuse"]


class ModerationPolicy(Frozen):
    """How prompts and answers are judged, and what is done with those that are flagged."""

    rules: bool = False
    """Judge by the word rules of `chaku data` (minors, sexual, slur, self_harm, weapons)."""
    patterns: dict[str, str] = {}
    """Category to regular expression, beside the rules; case does not matter."""
    url: str | None = None
    """Base URL of an API with /moderations, such as https://api.openai.com/v1."""
    url_model: str = "omni-moderation-latest"
    api_key_env: str | None = None
    """Environment variable that holds the key of `url`."""
    guard: ModelName | None = None
    """Served model that answers "safe", or "unsafe" and a line of categories, as Llama Guard does. Its own requests
    are not judged."""
    threshold: float | None = Field(None, ge=0, le=1)
    """Flag a category whose score at `url` reaches this. Default: those that it names."""
    actions: dict[str, ModerationAction] = {}
    """What is done, by category. warn: a header names it. hide: the flagged text is left out. refuse: the prompt is
    refused, and nothing of the answer is kept that was not sent yet."""
    action: ModerationAction = "refuse"
    """What is done for other categories."""
    input: bool = True
    """Judge prompts."""
    output: bool = True
    """Judge answers."""
    on_failure: Literal["open", "closed"] = "closed"
    """Where the judge does not answer: open lets everything pass, closed refuses it."""
    window: int = Field(200, ge=20, le=20_000)
    """Characters of a stream that are held back until they are judged."""
    timeout_s: float = Field(10.0, gt=0)

    @model_validator(mode="after")
    def _has_a_judge(self) -> ModerationPolicy:
        if not (self.rules or self.patterns or self.url or self.guard):
            raise ValueError("a moderation policy needs rules, patterns, url or guard")
        return self

    @field_validator("patterns")
    @classmethod
    def _are_expressions(cls, patterns: dict[str, str]) -> dict[str, str]:
        for pattern in patterns.values():
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is not a regular expression: {error}") from None
        return patterns


class Contestant(Frozen):
    """A model as it stands in an arena: one model can stand there under several settings."""

    name: ModelName
    model: ModelName
    """The name under which it is served."""
    system: str | None = Field(None, max_length=20_000)
    """The system prompt."""
    sampling: dict[str, Any] = {}
    """Request parameters, such as temperature."""

    @classmethod
    def of_flag(cls, text: str) -> Contestant:
        """As the command line has it: MODEL, NAME=MODEL or {name: NAME, model: MODEL, ...}. Raises ConfigError."""
        try:
            return cls.model_validate(_contestant(text))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(map(str, first["loc"]))
            raise ConfigError(f"the contestant {text[:80]!r}: {place}: {in_words(first)}") from None
        except ValueError as error:
            raise ConfigError(str(error)) from None


class ServeConfig(Frozen):
    """Everything `chaku serve` can be told."""

    models: tuple[ModelConfig, ...] = ()
    host: str = "127.0.0.1"
    """Address to bind. Anything but loopback needs an API key in the store."""
    port: int = Field(DEFAULT_PORT, ge=0, le=MAX_PORT)
    """0 takes a free one."""
    allowed_hosts: tuple[str, ...] = ()
    """Further Host names to answer to (a reverse proxy's name)."""
    public_url: str | None = None
    """Address at which others reach this gateway, such as https://chat.example. Needs an API key in the store."""
    tls_cert: Path | None = None
    """PEM file with the certificate that the server shows, and the authorities between it and the root: HTTPS."""
    tls_key: Path | None = None
    """PEM file with its private key."""
    joins: bool = True
    """Let workers on other machines join, with a join token. Without any key, workers on this machine may join too."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages that may call the API from a browser."""
    trusted_proxies: tuple[str, ...] = ()
    """Networks (CIDR) of reverse proxies whose X-Forwarded-For and X-Forwarded-Proto are believed."""
    max_connections: int = Field(1000, ge=1)
    """Clients connected at the same time; the one that has waited longest without asking anything makes room."""
    body_timeout_s: float = Field(30.0, gt=0)
    """Longest time for a request's body to arrive, and a second more for each 64 KiB of it."""
    routing: RoutingPolicy = "prefix"
    """How a model's replica is chosen: prefix prefers one that has read the prompt's beginning, unless it is busy."""
    continue_answers: bool = False
    """Continue answers that broke off at another replica, marked; x-chaku-continue: on or off in a request decides."""
    score_model: str | None = None
    """Model that answers at /score where several are served and the request names none."""
    prices: dict[ModelName, Price] = {}
    """Prices of models by name, for limits in dollars and for `chaku keys usage`. A model without one costs nothing."""
    guests: GuestPolicy | None = None
    """Let visitors use the page without a key, each with limits and chats of their own. Default: not at all."""
    moderation: ModerationPolicy | None = None
    """How prompts and answers are judged. Default: not at all."""
    conversation_turns: int | None = Field(None, ge=1)
    """User messages that one chat may have."""
    input_characters: int | None = Field(None, ge=1)
    """Characters that the last user message may have."""
    ui: bool = True
    """Serve the page beside the API."""
    runs: str = "runs"
    """Folder whose training runs the page shows, to the local user alone."""
    evals: str = "evals"
    """Folder whose evaluation runs the page shows, to the local user alone."""
    contestants: tuple[Contestant, ...] = ()
    """Who stands in the arena. Default: every model that answers chats, as it is."""
    arena_battles_per_hour: int = Field(60, ge=1)
    """Battles that one visitor may begin."""
    arena_turns: int = Field(10, ge=1)
    """Turns of one battle."""
    database: str | None = None
    """SQLAlchemy URL. Default: CHAKU_DATABASE, or an SQLite file in the data folder."""
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"

    @field_validator("contestants", mode="before")
    @classmethod
    def _read_flags(cls, contestants: Any) -> Any:
        """On the command line a contestant is NAME=MODEL, or a mapping as in YAML."""
        return tuple(_contestant(one) if isinstance(one, str) else one for one in contestants or ())

    @field_validator("guests", mode="before")
    @classmethod
    def _read_guests(cls, guests: Any) -> Any:
        """On the command line guests are let in or not; a YAML file may have a policy."""
        return (GuestPolicy() if guests else None) if isinstance(guests, bool) else guests

    @field_validator("moderation", mode="before")
    @classmethod
    def _read_moderation(cls, moderation: Any) -> Any:
        """On the command line it is the word rules, the URL of an API, or a mapping as in YAML."""
        if not isinstance(moderation, str):
            return moderation
        if moderation.startswith(("http://", "https://")):
            return {"url": moderation}
        if moderation == "rules":
            return {"rules": True}
        return _mapping(moderation, "rules, a URL, or {rules: true, actions: {...}}")

    @field_validator("prices", mode="before")
    @classmethod
    def _read_prices(cls, prices: Any) -> Any:
        """On the command line a price is NAME=PROMPT/COMPLETION."""
        return prices if isinstance(prices, dict) else dict(_price(text) for text in prices)

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

    @field_validator("trusted_proxies")
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

    @field_validator("cors_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            if origin != "*" and not re.fullmatch(ORIGIN, origin):
                raise ValueError(f"{origin!r} is not an origin: write scheme and host, such as https://app.example")
        return origins


def _price(text: str) -> tuple[str, dict[str, str]]:
    found = re.fullmatch(r"(?P<name>.+)=(?P<prompt>[^/]+)/(?P<completion>[^/]+)", text)
    if found is None:
        raise ValueError(f"{text[:80]!r} is not NAME=PROMPT/COMPLETION, in dollars per million tokens")
    return found["name"], {"prompt": found["prompt"], "completion": found["completion"]}


def _contestant(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        name, _, model = text.partition("=")
        return {"name": name, "model": model or name}
    return _mapping(text, "{name: NAME, model: MODEL, system: TEXT}")


def _mapping(text: str, example: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"{text[:80]!r} is not a mapping: write {example}") from None


Config = TypeVar("Config", bound=Frozen)


@dataclass(frozen=True)
class Loaded(Generic[Config]):
    """A configuration and where each top-level value came from: "default", a file's path, or "flag"."""

    config: Config
    origins: dict[str, str]


def load(
    kind: type[Config],
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    *,
    flag_names: Mapping[str, str] | None = None,
) -> Loaded[Config]:
    """Merge a YAML file and flags (flags win; None means not given) into a checked configuration.

    `flag_names` spells flags that are not `--` and the key.

    Raises ConfigError naming the key, the nearest known key, the value and the limit.
    """
    values: dict[str, Any] = {}
    origins = dict.fromkeys(kind.model_fields, "default")
    if file is not None:
        for key, value in _read_yaml(file).items():
            values[key] = value
            origins[key] = str(file)
    for key, value in (flags or {}).items():
        if value is not None:
            values[key] = value
            origins[key] = "flag"
    try:
        return Loaded(kind.model_validate(values), origins)
    except ValidationError as error:
        at_fault = error.errors()[0]["loc"][:1]
        if at_fault and origins.get(str(at_fault[0])) == "flag":
            raise _explain_flag(error, flag_names or {}) from None
        raise explain(error, kind, where=str(file) if file else "configuration") from None


_YAML_FIX = "write it as lines of `key: value`; examples/ in the repository has one of each kind"


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text())
    except OSError as error:
        raise ConfigError(f"can't read {file}: {error.strerror}", fix="check the path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text: byte {error.start} is none", fix=_YAML_FIX) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{file}{at}: {error.problem}", fix="mend that line; `key: value` needs the space") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {str(error).splitlines()[0]}", fix=_YAML_FIX) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds a {type(content).__name__}, not a mapping of keys to values", fix=_YAML_FIX)
    return content


def explain(error: ValidationError, kind: type[BaseModel], *, where: str) -> ConfigError:
    """Turn pydantic's first complaint into one line that names the key, the value and the nearest known key."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        unknown = str(first["loc"][-1])
        known = sorted({*kind.model_fields, *_nested_keys(kind)})
        fix = did_you_mean(unknown, known, f"known keys: {', '.join(sorted(kind.model_fields))}")
        return ConfigError(f"{where}: unknown key {path!r}", fix=fix, param=path)
    fix = _example(first, "{key}: {example}") or f"known keys: {', '.join(sorted(kind.model_fields))}"
    if first["type"] == "missing":
        return ConfigError(f"{where}: {path} is missing", fix=fix, param=path)
    found = f"{path} is {shown(first['input'])}" if path else f"it is {shown(first['input'])}"
    return ConfigError(f"{where}: {found}, {in_words(first)}", fix=fix, param=path)


def _explain_flag(error: ValidationError, names: Mapping[str, str]) -> ConfigError:
    first = error.errors()[0]
    key = _key(first)
    flag = names.get(key, "--" + key.replace("_", "-"))
    fix = _example(first, flag + " {example}")
    return ConfigError(f"{flag} is {shown(first['input'])}, {in_words(first)}", fix=fix, param=key)


_EXAMPLES = {
    "models": "[{source: smollm2-135m}]", "source": "smollm2-135m", "name": "my-model", "engine": "llamacpp",
    "context": "4096", "slots": "8",
    "threads": "4", "spin": "true", "force": "true", "gpu_layers": "0", "kv_type": "q8_0", "quant": "q4_0",
    "lora": "[adapter.gguf]",
    "mmproj": "mmproj.gguf", "embeddings": "false", "idle_unload_s": "600", "queue_limit": "64", "deadline_s": "600",
    "api_key_env": "UPSTREAM_KEY", "upstream_model": "gpt-4o", "extensions": "[top_k]", "host": "127.0.0.1",
    "port": str(DEFAULT_PORT), "allowed_hosts": "[gpu-box.lan]", "cors_origins": "[https://app.example]", "ui": "false",
    "public_url": "https://chat.example", "tls_cert": "cert.pem", "tls_key": "key.pem", "joins": "false",
    "trusted_proxies": "[10.0.0.0/8]", "max_connections": "1000", "body_timeout_s": "30", "routing": "least_loaded",
    "contestants": "[{name: terse, model: smollm2-135m, system: Be brief.}]", "arena_battles_per_hour": "60",
    "arena_turns": "10",
    "continue_answers": "true", "fallback": "smollm2-135m",
    "guests": "true", "keep_days": "30", "moderation": "rules",
    "patterns": "{secret: 'project x'}", "conversation_turns": "50", "input_characters": "12000",
    "score_model": "my-model", "prices": "{my-model: {prompt: 0.15, completion: 0.6}}",
    "replicas": "2", "max_replicas": "4", "gpus": "1", "cpus": "4", "memory_gb": "8",
    "price_per_hour": "0.5", "drain_s": "60", "workers": "[{source: smollm2-135m, replicas: 2}]",
    "join": "[http://gateway:8000]", "model": "{source: smollm2-135m}",
    "database": "sqlite:///chaku.db", "log_level": "INFO", "match": "hello", "replies": "[{text: hello}]",
}  # fmt: skip


def _key(complaint: Any) -> str:
    """The last key on the way to the value at fault; indices of lists are none."""
    return next((part for part in reversed(complaint["loc"]) if part in _EXAMPLES), str(complaint["loc"][0]))


def _example(complaint: Any, form: str) -> str | None:
    key = _key(complaint) if complaint["loc"] else ""
    if key not in _EXAMPLES:
        return None
    example = _EXAMPLES[key] if "{key}" in form else _EXAMPLES[key].strip("[]{}").removeprefix("{source: ")
    return "write it such as " + form.format(key=key, example=example)


def _nested_keys(kind: type[BaseModel]) -> set[str]:
    """Keys of the models that a model's fields hold, at any depth."""
    keys: set[str] = set()
    waiting: list[Any] = [field.annotation for field in kind.model_fields.values()]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            keys.update(annotation.model_fields)
            waiting.extend(field.annotation for field in annotation.model_fields.values())
        else:
            waiting.extend(get_args(annotation))
    return keys
