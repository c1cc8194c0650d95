"""Configuration: where chaku keeps things, and how a YAML file and flags become one set of settings.

The environment is read here and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo

from chaku.complaints import MODEL_NAME, in_words, not_utf8, shown
from chaku.errors import ConfigError
from chaku.nearest import did_you_mean

DEFAULT_PORT, MAX_PORT = 8000, 65535
MAX_COUNT = 1_000_000
"""The most of anything that a setting counts."""
MAX_DAYS = 36_500
MAX_WAIT_S = 86_400 * 365
"""The longest time in seconds that a setting takes. Clocks and databases overflow far above it."""
MAX_MODEL_NAME = 256
ModelName = Annotated[str, Field(pattern=MODEL_NAME, max_length=MAX_MODEL_NAME)]
"""The rule for a model's name, wherever it is given: on the command line, in a file, in a request, on the page."""
ORIGIN = r"[A-Za-z][A-Za-z0-9+.-]*://(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?/?"
HOST_NAME = r"[A-Za-z0-9_.-]+|[0-9A-Fa-f:.]+"
JOIN_TOKEN_VARIABLE = "CHAKU_JOIN_TOKEN"  # noqa: S105 - the variable's name
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


class Frozen(BaseModel):
    """Base of every configuration model: immutable; an unknown key is an error, and so are nan and inf."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_true_for_1(cls, value: Any, known: ValidationInfo) -> Any:
        if isinstance(value, bool) and is_number(cls.model_fields[str(known.field_name)]):
            raise ValueError("a number is needed")
        return value


def is_number(field: FieldInfo) -> bool:
    """Whether a setting takes a number, and nothing else but null."""
    return {*(get_args(field.annotation) or (field.annotation,))} - {type(None)} in ({int}, {float})


Config = TypeVar("Config", bound=Frozen)


@dataclass(frozen=True)
class Loaded(Generic[Config]):
    """A configuration and where each top-level value came from: "default", a file's path, a variable, or "flag"."""

    config: Config
    origins: dict[str, str]


def load(
    kind: type[Config],
    file: Path | None = None,
    flags: Mapping[str, Any] | None = None,
    *,
    flag_names: Mapping[str, str] | None = None,
    variables: str | None = None,
) -> Loaded[Config]:
    """Merge a YAML file, environment and flags (the last wins; None is not given) into a checked configuration.

    `flag_names` spells flags that are not `--` and the key. `variables` is how the names of environment variables begin
    before the key in capitals.

    Raises ConfigError naming the key, the nearest known key, the value and the limit.
    """
    values: dict[str, Any] = {}
    origins = dict.fromkeys(kind.model_fields, "default")
    if file is not None:
        for key, value in _read_yaml(file).items():
            values[key] = value
            origins[key] = str(file)
    names = {} if variables is None else {key: variable_of(key, variables) for key in kind.model_fields}
    for key, name in names.items():
        if (text := environment(name)) is not None:
            values[key] = _read_variable(text, name, is_list=_takes_several(kind, key))
            origins[key] = name
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
        origin = origins.get(str(at_fault[0]), "default") if at_fault else "default"
        where = origin if origin != "default" else str(file) if file else "configuration"
        raise explain(error, kind, where=where) from None


def variable_of(key: str, beginning: str) -> str:
    """The environment variable of a setting."""
    return beginning + key.upper()


def _read_variable(text: str, name: str, *, is_list: bool) -> Any:
    """The value in an environment variable: YAML, and for a list also words with spaces between them."""
    if is_list and text.lstrip()[:1] not in ("[", "{", "-"):
        return tuple(text.split())
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ConfigError(f"{name} is not YAML: {shown(text)}", fix="write it as in the file for --config") from None


def _takes_several(kind: type[BaseModel], key: str) -> bool:
    return get_origin(kind.model_fields[key].annotation) in (tuple, dict)


_YAML_FIX = "write it as lines of `key: value`; examples/ in the repository has one of each kind"


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"can't read {file}: {error.strerror}", fix="check the path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(not_utf8(str(file), error), fix=_YAML_FIX) from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        at = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError(f"{file}{at}: {error.problem}", fix="mend that line; `key: value` needs the space") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{file} is not YAML: {str(error).splitlines()[0]}", fix=_YAML_FIX) from None
    if content is None:
        raise ConfigError(f"{file} is empty", fix=_YAML_FIX)
    if not isinstance(content, dict):
        raise ConfigError(f"{file} holds a {type(content).__name__}, not a mapping of keys to values", fix=_YAML_FIX)
    return content


def explain(error: ValidationError, kind: type[BaseModel], *, where: str) -> ConfigError:
    """Turn pydantic's first complaint into one line that names the key, the value and the nearest known key."""
    first = error.errors()[0]
    inner = _nested(kind)
    path = ".".join(_keys(first["loc"], inner))
    if first["type"] == "extra_forbidden":
        unknown = str(first["loc"][-1])
        known = sorted({key for model in (kind, *inner) for key in model.model_fields})
        fix = did_you_mean(unknown, known, f"known keys: {', '.join(sorted(kind.model_fields))}")
        return ConfigError(f"{where}: unknown key {path!r}", fix=fix, param=path)
    examples = getattr(kind, "EXAMPLES", _EXAMPLES)
    fix = _example(first, examples) or f"known keys: {', '.join(sorted(kind.model_fields))}"
    if first["type"] == "missing":
        return ConfigError(f"{where}: {path} is missing", fix=fix, param=path)
    found = f"{path} is {shown(first['input'])}" if path else f"it is {shown(first['input'])}"
    return ConfigError(f"{where}: {found}, {in_words(first)}", fix=fix, param=path)


def _explain_flag(error: ValidationError, names: Mapping[str, str]) -> ConfigError:
    first = error.errors()[0]
    keys = [part for part in first["loc"] if isinstance(part, str)]
    key = next((key for key in keys if key not in ("models", "model")), keys[0])  # a model's settings have flags too
    flag = names.get(key, "--" + key.replace("_", "-"))
    fix = f"write it such as {flag} {_FLAG_EXAMPLES[key]}" if key in _FLAG_EXAMPLES else None
    return ConfigError(f"{flag} is {shown(first['input'])}, {in_words(first)}", fix=fix, param=key)


_EXAMPLES = {
    "models": "[{source: smollm2-135m}]", "source": "smollm2-135m", "name": "my-model", "engine": "llamacpp",
    "engine_args": "{batch: 512}",
    "context": "4096", "slots": "8",
    "threads": "4", "spin": "true", "force": "true", "gpu_layers": "0", "kv_type": "q8_0", "quant": "q4_0",
    "lora": "[adapter.gguf]", "adapters": "{legal: runs/legal/final}",
    "mmproj": "mmproj.gguf", "embeddings": "false", "idle_unload_s": "600", "queue_limit": "64", "deadline_s": "600",
    "api_key_env": "UPSTREAM_KEY", "upstream_model": "gpt-4o", "extensions": "[top_k]", "host": "127.0.0.1",
    "port": str(DEFAULT_PORT), "allowed_hosts": "[gpu-box.lan]", "cors_origins": "[https://app.example]", "ui": "false",
    "public_url": "https://chat.example", "tls_cert": "cert.pem", "tls_key": "key.pem", "joins": "false",
    "trusted_proxies": "[10.0.0.0/8]", "fastchat_networks": "[10.0.0.0/8]", "user_header": "X-Forwarded-User",
    "max_connections": "1000", "body_timeout_s": "30", "routing": "least_loaded",
    "contestants": "[{name: terse, model: smollm2-135m, system: Be brief.}]", "arena_battles_per_hour": "60",
    "arena_turns": "10",
    "continue_answers": "true", "fallback": "smollm2-135m",
    "guests": "true", "image_limits": "{megabytes: 10}",
    "keep_days": "30", "retention_days": "{chats: 90}", "keep": "false", "moderation": "rules",
    "patterns": "{secret: 'project x'}", "conversation_turns": "50", "input_characters": "12000",
    "score_model": "my-model", "prices": "{my-model: {prompt: 0.15, completion: 0.6}}",
    "replicas": "2", "max_replicas": "4", "gpus": "1", "cpus": "4", "memory_gb": "8",
    "price_per_hour": "0.5", "drain_s": "60", "workers": "[{source: smollm2-135m, replicas: 2}]",
    "join": "[http://gateway:8000]", "model": "{source: smollm2-135m}",
    "database": "sqlite:///chaku.db", "log_level": "INFO", "traces": "true",
    "match": "hello", "replies": "[{text: hello}]",
}  # fmt: skip
_FLAG_EXAMPLES = {key: example.strip("[]") for key, example in _EXAMPLES.items()} | {
    "models": "smollm2-135m", "engine_args": "batch=512", "adapters": "legal=runs/legal/final",
    "contestants": "terse=smollm2-135m", "image_limits": "megabytes=10", "retention_days": "chats=90",
    "prices": "my-model=0.15/0.6",
}  # fmt: skip
"""Where the command line has another form than a file."""


def _key(complaint: Any, examples: Mapping[str, str]) -> str:
    """The last key with an example on the way to the value at fault."""
    return next((part for part in reversed(complaint["loc"]) if part in examples), str(complaint["loc"][0]))


def _example(complaint: Any, examples: Mapping[str, str]) -> str | None:
    key = _key(complaint, examples) if complaint["loc"] else ""
    return f"write it such as {key}: {examples[key]}" if key in examples else None


def _keys(place: tuple[int | str, ...], inner: list[type[BaseModel]]) -> list[str]:
    """A place without the branches of unions, which pydantic names among the keys (a model, or last a plain type)."""
    branches = {model.__name__ for model in inner}
    keys = [str(part) for part in place if part not in branches]
    return keys[:-1] if len(keys) > 1 and keys[-1] in ("bool", "str", "int", "float") else keys


def _nested(kind: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that a model's fields hold, at any depth."""
    models: list[type[BaseModel]] = []
    waiting: list[Any] = [field.annotation for field in kind.model_fields.values()]
    while waiting:
        annotation = waiting.pop()
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            models.append(annotation)
            waiting.extend(field.annotation for field in annotation.model_fields.values())
        else:
            waiting.extend(get_args(annotation))
    return models
