"""The child that holds llama.cpp: `python -m chaku.engines.llamacpp_host`, configured by one JSON line on standard input.

It prints {"address": URL} when the server listens with the model loaded, or {"error": ..., "kind": ...}, and then sleeps
until its parent goes or ends it. The only module that imports xllamacpp.
"""

from __future__ import annotations

import signal
import sys
from typing import Any

from chaku.engines.process import Lifeline

_ALL_SAMPLING_FIELDS = 0xFFF
"""Every bit of llama.cpp's common_params_sampling_config: set means "chosen by the user", so that general.sampling.*
metadata inside a GGUF file can't replace the API's defaults."""


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
        server = xllamacpp.Server(_parameters(xllamacpp, lifeline.config))
    except Exception as error:  # whatever llama.cpp threw; the parent makes a sentence of it and of our stderr
        lifeline.say({"error": str(error), "kind": "load"})
        return 1
    lifeline.say({"address": server.listening_address})
    signal.pause()
    return 0


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
    params.sse_ping_interval = -1
    params.verbosity = 2
    if config["gpu_layers"] is not None:
        params.n_gpu_layers = config["gpu_layers"]
    batch = config["batch"] or (2048 if _uses_gpu(xllamacpp, config) else 256)
    params.n_batch, params.n_ubatch = batch, min(batch, params.n_ubatch)
    for name, value in config["params"].items():
        setattr(params, name, value)
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
