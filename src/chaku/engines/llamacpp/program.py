"""llama-server: llama.cpp's server as a program of the user's, built for a GPU perhaps. Where it is, its command line.

It speaks as the server inside the wheel does, so all that speaks to llama.cpp is shared. Nothing is started to stay.
"""

from __future__ import annotations

import functools
import logging
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from chaku.settings import ModelConfig

_log = logging.getLogger(__name__)

NAME = "llama-server"
_TIMEOUT_S = 60.0
_DEVICE = re.compile(r"^\s+(?P<name>\w+): .*\(\d+ MiB, (?P<free>\d+) MiB free\)", re.MULTILINE)
"""A line of `--list-devices`, such as "  CUDA0: NVIDIA H200 (143167 MiB, 142000 MiB free)". The CPU is not listed."""
_SAMPLING = (
    "--temp", "1", "--top-k", "0", "--top-p", "1", "--min-p", "0", "--repeat-penalty", "1", "--repeat-last-n", "64",
    "--xtc-probability", "0", "--xtc-threshold", "0.1", "--mirostat", "0", "--mirostat-lr", "0.1",
    "--mirostat-ent", "5",
)  # fmt: skip
"""OpenAI's defaults. What is named here can't come from general.sampling.* inside a GGUF file."""
_OPTIONS = {
    "n_parallel": "--parallel", "n_ctx": "--ctx-size", "n_threads_http": "--threads-http", "n_batch": "--batch-size",
    "n_ubatch": "--ubatch-size",
}  # fmt: skip
"""llama.cpp's parameters to the options that set them."""


def find(config: ModelConfig | None) -> Path | None:
    """The program: the one that `--engine-arg binary` names, or the one on the PATH; None where there is none."""
    given = str(config.engine_args.get("binary", NAME)) if config else NAME
    found = shutil.which(Path(given).expanduser())
    return Path(found) if found else None


@functools.cache
def devices(program: Path) -> dict[str, int]:
    """The GPUs that it can use, by name, and the bytes free on each. Asked once; empty where it can't say."""
    try:
        said = subprocess.run(  # noqa: S603 - the program is the user's choice
            [program, "--list-devices"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning("GPUs are not known, planning without them program=%s error=%r", program, str(error))
        return {}
    return {found["name"]: int(found["free"]) << 20 for found in _DEVICE.finditer(said)}


def command(program: Path, config: Mapping[str, Any], port: int) -> list[str]:
    """Its command line for what `host` gets as its configuration; the key and the template are not in it."""
    params = config["params"]
    words = [str(program), "--model", config["model"], "--alias", config["alias"], "--host", "127.0.0.1"]
    words += ["--port", str(port), "--slots", "--no-webui", "--verbosity", "2", *_SAMPLING]
    words += ["--cache-type-k", config["kv_type"], "--cache-type-v", config["kv_type"]]
    for name, option in _OPTIONS.items():
        if name in params:
            words += [option, str(params[name])]
    if "n_batch" not in params:
        batch = config["batch"] or (2048 if config["gpu_layers"] else 256)
        words += ["--batch-size", str(batch), "--ubatch-size", str(min(batch, 512))]
    for option, name in (("--threads", "threads"), ("--gpu-layers", "gpu_layers"), ("--mmproj", "mmproj")):
        words += [] if config[name] is None else [option, str(config[name])]
    for path in config["lora"]:
        words += ["--lora", path]
    return [*words, *(["--embedding", "--pooling", config["pooling"]] if params.get("embedding") else [])]


def environment(config: Mapping[str, Any]) -> dict[str, str]:
    """Its key and template, and what older programs have no option for, and then ignore."""
    template = config["params"].get("chat_template")
    return {
        "LLAMA_API_KEY": config["key"],
        "LLAMA_ARG_CACHE_RAM": "0",  # as in `host`
        "LLAMA_ARG_SSE_PING_INTERVAL": "-1",
        "LLAMA_ARG_CONTEXT_SHIFT": "0",
        "LLAMA_ARG_JINJA": "1",
        **({"LLAMA_ARG_CHAT_TEMPLATE": template} if template else {}),
    }
