"""From a folder and its settings to vLLM or SGLang. Nothing is started here; neither is imported."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from chaku.chat.export import to_jinja
from chaku.chat.plain_text import compile_specials
from chaku.chat.templates import get_template
from chaku.config import Frozen
from chaku.engines.base import Capabilities
from chaku.engines.chat_template import stops_of
from chaku.engines.servers import commands, environments
from chaku.engines.servers.engine import ServerEngine, ServerKind, Settings
from chaku.engines.servers.parsers import Parsers, parsers_for
from chaku.errors import ConfigError, ModelError
from chaku.models.fetch.folders import base_of, is_adapter, model_folder
from chaku.models.files.modelconfig import CONFIG, read_adapter_config, require_config
from chaku.models.tokenizers.tokenizer import load_tokenizer
from chaku.settings import ModelConfig

SERVERS = {
    "vllm": ServerKind("vLLM", commands.vllm, "{name}"),
    "sglang": ServerKind("SGLang", commands.sglang, commands.BASE + ":{name}"),
}
_SLOTS = 128
PARAMETERS = frozenset({
    "max_tokens", "max_completion_tokens", "n", "stop", "seed", "logprobs", "top_logprobs",
    "presence_penalty", "frequency_penalty", "logit_bias", "response_format",
    "top_k", "min_p", "repetition_penalty", "ignore_eos", "continue_final_message",
})  # fmt: skip
"""Request fields that both honour for every model."""
OF_VLLM = frozenset({"echo"})
OF_TOOLS = frozenset({"parallel_tool_calls"})
WHY_NOT = {
    "suffix": "vLLM and SGLang do not fill in the middle",
    "best_of": "vLLM and SGLang do not rank answers: use n",
    "embeddings": "their servers are started for answers: use llamacpp for embeddings",
    "echo": "only vLLM repeats the prompt",
}


class ServerArgs(Frozen):
    """The `engine_args` of vLLM and SGLang."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Numbers of the weights; auto: as the folder has them."""
    pipeline: int = Field(1, ge=1)
    """Pipeline stages among the GPUs; the rest is tensor parallel."""
    gpu_memory: float | None = Field(None, gt=0, le=1)
    """Share of each GPU's memory. Default: the server's, about nine tenths: set it where several models share a GPU."""
    tool_parser: str | None = None
    """The server's parser of tool calls. Default: by the model's family and template; none: no tools."""
    reasoning_parser: str | None = None
    """The server's parser of thoughts. Default: by the model's family and template; none: thoughts stay text."""
    sleep: bool = False
    """An idle vLLM keeps its process, moves the weights to main memory and leaves its GPUs; needs --idle-unload."""
    options: str = ""
    """Further words of the server's own command line."""

    @field_validator("options")
    @classmethod
    def _leave_ours(cls, options: str) -> str:
        try:
            option = commands.forbidden(options)
        except ValueError as error:
            raise ValueError(f"{options[:80]!r} can't be split into words: {error}") from None
        if option is not None:
            raise ValueError(f"{option} is chaku's to set")
        return options


def python_of(engine: str, config: ModelConfig) -> Path | None:
    """The interpreter that runs a server: the configured one, or that of the environment which chaku made."""
    if config.engine_python is not None:
        return config.engine_python
    found = environments.installed(engine)
    return found.python if found else None


def open_server(engine: str, name: str, config: ModelConfig, path: Path) -> ServerEngine:
    """The engine of a Hugging Face folder, a run, or a peft adapter on such a folder.

    Raises ModelError for a folder that it can't load, ConfigError for settings that do not go together.
    """
    args, server = ServerArgs.model_validate(config.engine_args), SERVERS[engine]
    python = _require_python(engine, name, config)
    _check_args(args, engine, name, config)
    folder = model_folder(path)
    base = base_of(folder) if is_adapter(folder) else folder
    if not (base / CONFIG).is_file():
        raise ModelError(f"{engine} can't load {base}: it is no Hugging Face folder", fix="use the engine llamacpp")
    # clients' names may hold any character, the servers' may not
    folders = {**({name: folder} if base != folder else {}), **config.adapters}
    adapters = {f"adapter-{index}": one for index, one in enumerate(folders.values())}
    names = (server.adapter.format(name=one) for one in adapters)
    ranks = [read_adapter_config(one).get("r") for one in adapters.values()]

    described = require_config(base / CONFIG)
    tokenizer = load_tokenizer(base)
    chosen = get_template(config.template) if config.template else None
    jinja = to_jinja(chosen, bos=tokenizer.adds_bos) if chosen else None
    template = jinja or tokenizer.chat_template
    found = parsers_for(engine, described.get("model_type"), template)
    parsers = Parsers(_asked(args.tool_parser, found.tools), _asked(args.reasoning_parser, found.reasoning))
    plan = commands.LaunchPlan(
        base,
        {one: place.absolute() for one, place in adapters.items()},
        max((rank for rank in ranks if isinstance(rank, int)), default=0),
        config.slots or _SLOTS,
        parsers,
        context=config.context,
        gpus=config.gpus or 1,
        pipeline=args.pipeline,
        dtype=args.dtype,
        gpu_memory=args.gpu_memory,
        sleeps=args.sleep,
        options=tuple(shlex.split(args.options)),
    )
    return ServerEngine(
        name,
        Settings(
            server,
            python,
            plan,
            _capabilities(engine, plan, template, has_vision="vision_config" in described),
            {name: commands.BASE, **dict(zip(folders, names, strict=True))},
            template=jinja,
            stops=stops_of(chosen) if chosen else (),
            specials=compile_specials(tokenizer.special_ids),
            idle_unload_s=config.idle_unload_s,
        ),
    )


def _require_python(engine: str, name: str, config: ModelConfig) -> Path:
    python = python_of(engine, config)
    if python is None or not os.access(python, os.X_OK):
        raise ConfigError(f"{name}: there is no Python for {engine}: {python}", fix=f"chaku engines install {engine}")
    return python


def _check_args(args: ServerArgs, engine: str, name: str, config: ModelConfig) -> None:
    gpus = config.gpus or 1
    if gpus % args.pipeline:
        raise ConfigError(f"{name}: {gpus} GPUs are not {args.pipeline} stages of equal size", param="engine_args")
    if args.sleep and (engine != "vllm" or config.idle_unload_s is None):
        why = "is vLLM's alone" if engine != "vllm" else "is for an idle server, and none is ever idle"
        raise ConfigError(f"{name}: sleep {why}", fix="set --idle-unload, or leave sleep out", param="engine_args")


def _asked(asked: str | None, found: str | None) -> str | None:
    return found if asked is None else None if asked == "none" else asked


def _capabilities(engine: str, plan: commands.LaunchPlan, template: str | None, *, has_vision: bool) -> Capabilities:
    parameters = PARAMETERS | (OF_VLLM if engine == "vllm" else frozenset())
    why_not = dict(WHY_NOT)
    if plan.parsers.tools is not None:
        parameters |= OF_TOOLS
    else:
        no_tools = "no parser of tool calls is known for its template: set --engine-arg tool_parser"
        why_not |= dict.fromkeys(("tools", "tool_choice", "parallel_tool_calls"), no_tools)
    if template is not None and "reasoning_effort" in template:
        parameters |= {"reasoning_effort"}
    else:
        why_not["reasoning_effort"] = "its chat template does not read it"
    if template is None:
        why_not["chat"] = "its folder has no chat template: choose one with --template"
    return Capabilities(
        routes=frozenset({"chat", "completions"} if template is not None else {"completions"}),
        parameters=parameters,
        tools=plan.parsers.tools is not None,
        vision=has_vision,
        reasoning=plan.parsers.reasoning is not None,
        scores_prompts=engine == "vllm",
        slots=plan.slots,
        context_tokens=plan.context,
        why_not=why_not,
    )
