"""The child that holds llama.cpp, configured by one JSON line on standard input. Nothing else imports xllamacpp.

It prints {"address": URL} when the server listens with the model loaded, or {"error": ..., "kind": ...}; then it sleeps
until its parent goes or ends it.
"""

from __future__ import annotations

import resource
import signal
import sys
from typing import Any

from chaku.engines.process import Lifeline
from chaku.models.plan.free_memory import available_bytes

_THREAD_STACK_BYTES = 8 << 20
_ALL_SAMPLING_FIELDS = 0xFFF
"""Every bit of llama.cpp's common_params_sampling_config: set means "chosen by the user", so that general.sampling.*
metadata inside a GGUF file can't replace the API's defaults."""

_POOLING = {"mean": 1, "cls": 2, "last": 3}
"""llama_pooling_type."""


def main() -> int:
    """Serve until told to end; 1 where the model can't be loaded, 3 where xllamacpp is not installed."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C at the terminal is the parent's business
    lifeline = Lifeline()
    try:
        import xllamacpp
    except ImportError as error:
        lifeline.say({"error": str(error), "kind": "missing"})
        return 3
    try:
        if lifeline.config["limits_memory"]:
            _limit_memory(reserve_bytes=lifeline.config["params"]["n_threads_http"] * _THREAD_STACK_BYTES)
        server = xllamacpp.Server(_parameters(xllamacpp, lifeline.config))
    except Exception as error:  # whatever llama.cpp threw; the parent makes a sentence of it and of our stderr
        lifeline.say({"error": str(error), "kind": "load"})
        return 1
    lifeline.say({"address": server.listening_address})
    signal.pause()
    return 0


def _limit_memory(*, reserve_bytes: int) -> None:
    """Make an allocation beyond the free memory, of the machine or of the container, fail at once.

    Linux would grant it and kill some process as it is filled. On other systems nothing is done.
    """
    free_bytes = available_bytes() if sys.platform == "linux" else None
    if free_bytes is not None:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (free_bytes + reserve_bytes, hard))


def _parameters(xllamacpp: Any, config: dict[str, Any]) -> Any:
    """llama.cpp's CommonParams from our configuration (see `LlamaCppEngine`)."""
    params = xllamacpp.CommonParams()
    params.model.path = config["model"]
    params.model_alias = {config["alias"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [config["key"]]
    params.endpoint_slots = True
    params.endpoint_props = False  # reading /props is always allowed; this would allow writing
    params.ui = False
    params.use_jinja = True
    params.ctx_shift = False
    params.cache_ram_mib = 0  # 8 GiB of old prompts beside the slots' own, which no memory plan knows of
    params.cache_idle_slots = False
    params.sse_ping_interval = -1
    params.verbosity = 2
    if config["gpu_layers"] is not None:
        params.n_gpu_layers = config["gpu_layers"]
    batch = config["batch"] or (2048 if _uses_gpu(xllamacpp, config) else 256)
    params.n_batch, params.n_ubatch = batch, min(batch, params.n_ubatch)
    for name, value in config["params"].items():
        setattr(params, name, value)
    if config["params"].get("embedding"):
        params.pooling_type = _POOLING[config["pooling"]]
    kv_type = getattr(xllamacpp.ggml_type, f"GGML_TYPE_{config['kv_type'].upper()}")
    params.cache_type_k = params.cache_type_v = kv_type
    if config["threads"] is not None:
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = config["threads"]
    if config["mmproj"] is not None:
        params.mmproj.path = config["mmproj"]
    adapters = []
    for path in config["lora"]:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = path, 1.0
        adapters.append(adapter)
    params.lora_adapters = adapters
    sampling = params.sampling
    sampling.temp, sampling.top_k, sampling.top_p, sampling.min_p = 1.0, 0, 1.0, 0.0
    sampling.penalty_repeat = 1.0
    sampling.user_sampling_config = _ALL_SAMPLING_FIELDS
    return params


def _uses_gpu(xllamacpp: Any, config: dict[str, Any]) -> bool:
    kinds = xllamacpp.ggml_backend_dev_type
    on_gpu = (kinds.GGML_BACKEND_DEVICE_TYPE_GPU, kinds.GGML_BACKEND_DEVICE_TYPE_IGPU)
    return config["gpu_layers"] != 0 and any(device["type"] in on_gpu for device in xllamacpp.get_device_info())


if __name__ == "__main__":
    sys.exit(main())
