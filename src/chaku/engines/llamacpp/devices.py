"""GPUs that this machine's llama.cpp build can use, and their free memory. A child process asks for them."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

from chaku.engines.process import python_argv

_log = logging.getLogger(__name__)

_TIMEOUT_S = 60.0
_SIGNS = ("nvidiactl", "dri", "kfd", "dxg")  # under /dev: NVIDIA, any with a kernel driver, AMD's compute, WSL


def free_gpu_bytes(dev: Path = Path("/dev")) -> int:
    """Bytes free on all GPUs together that llama.cpp can use; 0 if there are none.

    A machine without a GPU's device file is not asked: loading llama.cpp takes half a second.
    """
    if sys.platform == "linux" and not any((dev / sign).exists() for sign in _SIGNS):
        return 0
    try:
        answer = subprocess.run(  # noqa: S603 - our own Python
            python_argv(__name__), capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
        )
        return int(json.loads(answer.stdout)["gpu_free_bytes"])
    except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
        _log.warning("GPUs are not known, planning without them error=%r", str(error))
        return 0


def main() -> int:
    """The child: print the free bytes as JSON."""
    import xllamacpp

    kinds = xllamacpp.ggml_backend_dev_type
    discrete = kinds.GGML_BACKEND_DEVICE_TYPE_GPU  # an integrated one shares the machine's memory
    free = sum(device["memory_free"] for device in xllamacpp.get_device_info() if device["type"] == discrete)
    print(json.dumps({"gpu_free_bytes": free}))  # noqa: T201 - the parent reads it
    return 0
