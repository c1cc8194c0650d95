"""Azure ML's scoring script: files of requests in, one line of JSON per answer out.

Azure ML calls `init` once per process, and `run` with the paths of a mini-batch: files as `chaku batch run` takes them.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

PROGRAM = os.environ.get("CHAKU_PROGRAM", "chaku")
PORT = os.environ.get("CHAKU_PORT", "8000")
PATIENCE_S = 600


def init() -> None:
    """Start the model that Azure ML mounted, and wait until it answers. Raises RuntimeError."""
    model = os.environ.get("CHAKU_MODEL") or next(Path(os.environ["AZUREML_MODEL_DIR"]).rglob("*.gguf"))
    server = subprocess.Popen([PROGRAM, "serve", f"model={model}", "--port", PORT])
    atexit.register(server.terminate)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5):
                return
        except OSError:
            time.sleep(0.2)
    raise RuntimeError("chaku did not start: its messages are in the log above")


def run(mini_batch: list[str]) -> list[str]:
    """Answer the requests of some files, a line of JSON each. A file that can't be read raises CalledProcessError."""
    lines: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, file in enumerate(mini_batch):
            output = Path(folder) / f"{number}.jsonl"
            line = [PROGRAM, "batch", "run", file, "-m", "model", "-o", str(output)]
            subprocess.run([*line, "--base-url", f"http://127.0.0.1:{PORT}/v1"], check=True)
            lines += output.read_text().splitlines()
    return lines
