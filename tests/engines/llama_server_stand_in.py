"""Behaves like llama.cpp's program llama-server: the same server, out of the wheel, behind that program's command line.

`make_program` writes a llama-server of this file. An option that the real one does not have ends it, as there.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from pathlib import Path

DEVICES = """Available devices:
  Vulkan0: Some GPU (RADV) (16384 MiB, 15000 MiB free)
  CUDA1: Other (9 MiB, 8 MiB free)
"""
"""What `--list-devices` of the real program prints, with two GPUs."""


def make_program(folder: Path) -> Path:
    """A program `llama-server` in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    program = folder / "llama-server"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {__file__} "$@"\n')
    program.chmod(0o755)
    return program


def arguments() -> argparse.Namespace:
    """The command line, by the names of llama-server b10434's help."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    for switch in ("--list-devices", "--slots", "--no-webui", "--embedding"):
        parser.add_argument(switch, action="store_true")
    for option in ("--model", "--alias", "--host", "--pooling", "--cache-type-k", "--cache-type-v", "--lora"):
        parser.add_argument(option)
    for option in ("--port", "--parallel", "--ctx-size", "--threads-http", "--batch-size", "--ubatch-size", "--threads",
                   "--gpu-layers", "--verbosity", "--top-k", "--repeat-last-n", "--mirostat"):  # fmt: skip
        parser.add_argument(option, type=int)
    for option in ("--temp", "--top-p", "--min-p", "--repeat-penalty", "--xtc-probability", "--xtc-threshold",
                   "--mirostat-lr", "--mirostat-ent"):  # fmt: skip
        parser.add_argument(option, type=float)
    return parser.parse_args()


def main() -> None:
    given = arguments()
    if given.list_devices:
        print(DEVICES)
        return
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = given.model, {given.alias}
    params.hostnames, params.port, params.api_keys = [given.host], given.port, [os.environ["LLAMA_API_KEY"]]
    params.n_parallel, params.n_ctx, params.n_threads_http = given.parallel, given.ctx_size, given.threads_http
    params.n_batch, params.n_ubatch, params.cpuparams.n_threads = given.batch_size, given.ubatch_size, given.threads
    params.use_jinja, params.ctx_shift, params.endpoint_slots, params.ui = True, False, given.slots, False
    params.chat_template = os.environ.get("LLAMA_ARG_CHAT_TEMPLATE", "")
    params.embedding, params.verbosity = given.embedding, given.verbosity
    if given.pooling:
        params.pooling_type = {"mean": 1, "cls": 2, "last": 3}[given.pooling]
    sampling = params.sampling
    sampling.temp, sampling.top_k, sampling.top_p, sampling.min_p = given.temp, given.top_k, given.top_p, given.min_p
    server = xllamacpp.Server(params)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    while server:
        signal.pause()


if __name__ == "__main__":
    main()
