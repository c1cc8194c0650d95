"""The options of `chaku serve`: names, help and groups. What they mean stands in `chaku.config`."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from chaku.cli.help_page import option_group
from chaku.config import DEFAULT_PORT
from chaku.settings import ModelConfig, RoutingPolicy

PER_MODEL = tuple(name for name in ModelConfig.model_fields if name not in ("source", "name"))
"""Settings of a model; on the command line they hold for every model there, in a YAML file model by model."""

FLAGS = {
    "idle_unload_s": "--idle-unload",
    "deadline_s": "--deadline",
    "body_timeout_s": "--body-timeout",
    "api_key_env": "--upstream-key-env",
    "engine_args": "--engine-arg",
    "adapters": "--adapter",
    "extensions": "--extension",
    "allowed_hosts": "--allowed-host",
    "cors_origins": "--cors-origin",
    "trusted_proxies": "--trusted-proxy",
    "fastchat_networks": "--fastchat-network",
    "models": "MODEL",
    "contestants": "--contestant",
    "prices": "--price",
    "image_limits": "--image-limit",
}
"""Flags that are not spelled like their setting."""

SECTIONS = {
    "Every MODEL on the command line": "engine",
    "A MODEL that is another API": "api_key_env",
    "Who may call": "allowed_hosts",
    "Several replicas of a model": "routing",
    "Arena": "contestants",
    "What is kept": "keep",
    "Page, database and log": "ui",
}
VARIABLES = "CHAKU_SERVE_"
"""How the environment variables of the settings begin."""
_FILE = click.Path(path_type=Path)

_TLS_OPTIONS = (
    click.option("--tls-cert", metavar="FILE", type=_FILE, help="Certificate, as PEM: serve HTTPS."),
    click.option("--tls-key", metavar="FILE", type=_FILE, help="Private key of the certificate, as PEM."),
)
traces_option = click.option(
    "--traces/--no-traces",
    default=None,
    show_default="no-traces",
    help="Send traces by OpenTelemetry to OTEL_EXPORTER_OTLP_ENDPOINT.",
)
max_connections_option = click.option(
    "--max-connections", metavar="N", show_default="1000", type=int, help="Clients connected at the same time."
)
_FIRST_OPTIONS = (
    click.option("--config", "config_file", metavar="FILE", type=_FILE, help="YAML file; flags win over it."),
    click.option(
        "--host", metavar="ADDRESS", show_default="127.0.0.1", help="Address to bind; any other needs an API key."
    ),
    click.option("--port", metavar="PORT", show_default=str(DEFAULT_PORT), type=int, help="Port; 0 takes a free one."),
    click.option("--print-config", is_flag=True, help="Print these settings as YAML for --config, and stop."),
    click.option("--show-settings", is_flag=True, help="Print every setting and where it comes from."),
)
_MODEL_OPTIONS = (
    click.option(
        "--engine", metavar="NAME", show_default="auto", help="Engine to serve it with; chaku doctor lists them."
    ),
    click.option(
        "--engine-arg",
        "engine_args",
        metavar="KEY=VALUE",
        multiple=True,
        help="Option of that engine alone; docs/engines.md lists them.",
    ),
    click.option(
        "--engine-python", metavar="PATH", type=_FILE, help="Python of an environment that has vLLM or SGLang."
    ),
    click.option("--gpus", metavar="N", show_default="1", type=int, help="GPUs that hold the model together."),
    click.option(
        "--context", metavar="TOKENS", type=int, help="Tokens that one request may use, prompt and answer together."
    ),
    click.option("--slots", metavar="N", type=int, help="Requests decoded at the same time."),
    click.option(
        "--threads", metavar="N", show_default="the cores, shared by the models", type=int, help="CPU threads."
    ),
    click.option(
        "--spin/--no-spin", default=None, help="Threads wait without sleeping. Faster only on an idle machine."
    ),
    click.option("--force/--no-force", default=None, help="Serve even what the memory plan refuses."),
    click.option("--gpu-layers", metavar="N", show_default="all that fit", type=int, help="Layers put on the GPU."),
    click.option(
        "--kv-type", show_default="f16", type=click.Choice(["f16", "q8_0"]), help="Key-value cache; q8_0 halves it."
    ),
    click.option(
        "--quant",
        show_default="as the file is; q8_0 for a folder",
        type=click.Choice(["f16", "bf16", "q8_0", "q4_0"]),
        help="Requantise the weights once.",
    ),
    click.option(
        "--template", metavar="NAME", show_default="the file's own", help="Built-in chat template, such as vicuna_v1.1."
    ),
    click.option("--lora", metavar="FILE", type=_FILE, multiple=True, help="GGUF LoRA adapter."),
    click.option(
        "--adapter",
        "adapters",
        metavar="NAME=FOLDER",
        multiple=True,
        help="peft adapter, served under its own name; repeatable.",
    ),
    click.option("--mmproj", metavar="FILE", type=_FILE, help="GGUF image projector."),
    click.option("--embeddings/--no-embeddings", default=None, help="Serve /v1/embeddings too."),
    click.option(
        "--idle-unload", "idle_unload_s", metavar="SECONDS", type=float, help="Stop an engine without requests."
    ),
    click.option("--queue-limit", metavar="N", show_default="64", type=int, help="Requests that may wait for a slot."),
    click.option(
        "--deadline",
        "deadline_s",
        metavar="SECONDS",
        show_default="600",
        type=float,
        help="Longest time for one request.",
    ),
    click.option("--fallback", metavar="NAME", help="Model that answers while this one is down."),
    click.option("--upstream-key-env", "api_key_env", metavar="VARIABLE", help="Variable that holds its key."),
    click.option("--upstream-model", metavar="NAME", help="The model's name there."),
    click.option("--extension", "extensions", metavar="NAME", multiple=True, help="Sampling extension it honours."),
)
_LAST_OPTIONS = (
    click.option(
        "--allowed-host", "allowed_hosts", metavar="NAME", multiple=True, help="Further host name to answer to."
    ),
    click.option("--public-url", metavar="URL", help="Address at which others reach it; needs an API key."),
    *_TLS_OPTIONS,
    click.option("--joins/--no-joins", default=None, show_default="joins", help="Let workers join with a join token."),
    click.option(
        "--fastchat-network",
        "fastchat_networks",
        metavar="CIDR",
        multiple=True,
        help="Let FastChat's workers and servers there use /fastchat, without a key.",
    ),
    click.option(
        "--cors-origin", "cors_origins", metavar="ORIGIN", multiple=True, help="Origin of pages that may call the API."
    ),
    click.option(
        "--trusted-proxy",
        "trusted_proxies",
        metavar="CIDR",
        multiple=True,
        help="Proxies whose X-Forwarded headers are believed.",
    ),
    click.option(
        "--user-header", metavar="NAME", help="Header in which a trusted proxy names the user that it has logged in."
    ),
    max_connections_option,
    click.option(
        "--body-timeout",
        "body_timeout_s",
        metavar="SECONDS",
        show_default="30",
        type=float,
        help="Longest time for a request's body to arrive.",
    ),
    click.option(
        "--routing",
        show_default="prefix",
        type=click.Choice(get_args(RoutingPolicy)),
        help="How one of several replicas of a model is chosen.",
    ),
    click.option(
        "--continue-answers/--no-continue-answers",
        default=None,
        show_default="no-continue-answers",
        help="Continue an answer that broke off at another replica.",
    ),
    click.option(
        "--contestant",
        "contestants",
        metavar="CONTESTANT",
        multiple=True,
        show_default="every model",
        help="Who stands in the arena: NAME=MODEL, or {name: NAME, model: MODEL, system: TEXT, sampling: {...}}.",
    ),
    click.option(
        "--arena-battles-per-hour",
        metavar="N",
        show_default="60",
        type=int,
        help="Battles that one visitor may begin.",
    ),
    click.option("--arena-turns", metavar="N", show_default="10", type=int, help="Turns of one battle."),
    click.option(
        "--score-model",
        metavar="MODEL",
        show_default="the only one",
        help="Model that answers at /score where the request names none.",
    ),
    click.option(
        "--batch-parallel",
        metavar="N",
        show_default="2",
        type=int,
        help="Requests of /v1/batches that run at once, in slots that nobody else wants.",
    ),
    click.option(
        "--price",
        "prices",
        metavar="NAME=PROMPT/ANSWER",
        multiple=True,
        show_default="free",
        help="Price of a model's tokens, in dollars per million.",
    ),
    click.option(
        "--guests/--no-guests",
        default=None,
        show_default="no-guests",
        help="Let visitors use the page without a key, with limits.",
    ),
    click.option(
        "--moderation",
        metavar="POLICY",
        show_default="none",
        help="How prompts and answers are judged: rules, the URL of an API with /moderations, or a mapping.",
    ),
    click.option(
        "--conversation-turns", metavar="N", show_default="no limit", type=int, help="User messages of one chat."
    ),
    click.option(
        "--input-characters", metavar="N", show_default="no limit", type=int, help="Characters of one user message."
    ),
    click.option(
        "--keep/--no-keep",
        default=None,
        show_default="keep",
        help="Keep what is said. With --no-keep it is in memory alone, for a day at most.",
    ),
    click.option(
        "--image-limit",
        "image_limits",
        metavar="KIND=NUMBER",
        multiple=True,
        show_default="megabytes=20, megapixels=50, count=32",
        help="Limit images. Kinds: megabytes and megapixels of one, count per request.",
    ),
    click.option(
        "--retention-days",
        metavar="KIND=DAYS",
        multiple=True,
        show_default="kept",
        help="Delete data after so many days. Kinds: chats, battles, usage, audit, files.",
    ),
    click.option("--ui/--no-ui", default=None, show_default="ui", help="Serve the page beside the API."),
    click.option("--open", "opens_page", is_flag=True, help="Open the page in a browser."),
    click.option(
        "--runs", metavar="FOLDER", show_default="runs", type=click.Path(), help="Training runs that the page shows."
    ),
    click.option(
        "--evals", metavar="FOLDER", show_default="evals", type=click.Path(), help="Evaluations that the page shows."
    ),
    click.option(
        "--database",
        metavar="URL",
        show_default="CHAKU_DATABASE, or an SQLite file in the data folder",
        help="SQLAlchemy URL.",
    ),
    click.option(
        "--log-level",
        show_default="INFO",
        type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]),
        help="Least important messages to log.",
    ),
    traces_option,
    click.option("--ready-fd", type=int, hidden=True, help="Write one JSON line there once the API answers."),
    click.option("--exit-with-parent", is_flag=True, hidden=True, help="End when the parent process is gone."),
)
serve_options = option_group(*_FIRST_OPTIONS, *_MODEL_OPTIONS, *_LAST_OPTIONS)
"""Every option of `chaku serve`."""
model_options = option_group(*_MODEL_OPTIONS)
"""Those of a model alone."""
tls_options = option_group(*_TLS_OPTIONS)
"""Those of HTTPS."""
