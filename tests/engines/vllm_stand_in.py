"""Behaves like vLLM's server, as a program of its own, and misbehaves when told to.

`make_python` writes an interpreter whose `vllm` (or `sglang`) is this file, and says in a file beside it what to do.
"""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import sys
import time
from pathlib import Path

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9, "prompt_tokens_details": None}
FLOOD_BYTES = 1_000_000
TOO_LONG = {
    "message": "This model's maximum context length is 2048 tokens. However, your prompt contains at least 2049 input "
    "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input prompt. "
    "(parameter=input_tokens, value=2049)",
    "type": "BadRequestError",
    "param": "input_tokens",
    "code": 400,
}
FORCED_ARGUMENTS = {
    False: '{"date": "2022-01-01", "time": "2022-01-01", "description": "Paris, France, 2022-01-01"}',
    True: '{"city": "Paris", "days": 3}',
}
"""What vLLM 0.32.0 answered for SmolLM2-135M on 2026-11-29 to a forced call of weather(city, days), by whether the tool
was strict."""


def make_python(folder: Path, **behaviour: object) -> Path:
    """An interpreter for `--engine-python`. `behaviour`: slow_s, flood, dies_at_start, crashes_once, never_wakes."""
    for module in ("vllm/entrypoints/cli/main", "sglang/launch_server"):
        file = folder / f"{module}.py"
        file.parent.mkdir(parents=True)
        file.write_text(Path(__file__).read_text())
        for parent in file.relative_to(folder).parents[:-1]:
            (folder / parent / "__init__.py").touch()
    (folder / "behaviour.json").write_text(json.dumps(behaviour))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nSTAND_IN={folder} PYTHONSAFEPATH=1 PYTHONPATH={folder} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    return python


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path != "/v1/models":
            self.answer(404, {"detail": "Not Found"})
        elif self.is_allowed():
            self.answer(200, {"object": "list", "data": [{"id": "base", "max_model_len": 2048}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null")
        if not self.is_allowed():
            return
        if self.path.startswith(("/sleep", "/wake_up")):
            self.lie_down_or_get_up()
            return
        if self.path != ("/v1/chat/completions" if "messages" in body else "/v1/completions"):
            self.answer(404, {"detail": "Not Found"})
            return
        if (HOME / "asleep").exists():  # a real one would not answer at all
            os._exit(1)
        with (HOME / "requests.jsonl").open("a") as log:
            log.write(json.dumps(body) + "\n")
        if BEHAVIOUR.get("flood"):
            print("INFO " + "x" * FLOOD_BYTES, flush=True)
            print("WARNING " + "y" * FLOOD_BYTES, file=sys.stderr, flush=True)
        if "too long" in json.dumps(body):
            self.answer(400, {"error": TOO_LONG})
        elif "messages" not in body:
            choice = {"index": 0, "text": " there", "finish_reason": "length", "logprobs": None, "stop_reason": None}
            self.answer(200, {"id": "c", "object": "text_completion", "created": 1, "model": "base",
                              "choices": [choice], "usage": USAGE})  # fmt: skip
        elif body.get("stream"):
            self.stream(body)
        else:
            said = {"role": "assistant", "content": f"{os.getpid()}", "reasoning": None, "tool_calls": []}
            if body.get("tool_choice") == "required":
                function = body["tools"][0]["function"]
                made = {"name": function["name"], "arguments": FORCED_ARGUMENTS[function.get("strict") is True]}
                said["tool_calls"] = [{"id": "chatcmpl-tool-1", "type": "function", "function": made}]
            choice = {"index": 0, "message": said, "finish_reason": "stop", "logprobs": None, "token_ids": None}
            self.answer(200, {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"],
                              "choices": [choice], "usage": USAGE, "prompt_logprobs": None})  # fmt: skip

    def lie_down_or_get_up(self) -> None:
        """As vLLM in its development mode, which alone has these routes."""
        mark = HOME / "asleep"
        if os.environ.get("VLLM_SERVER_DEV_MODE") != "1" or "--enable-sleep-mode" not in sys.argv:
            self.answer(404, {"detail": "Not Found"})
        elif BEHAVIOUR.get("never_wakes") and self.path == "/wake_up":
            mark.unlink()
            self.answer(500, {"detail": "CUDA error"})
        else:
            mark.touch() if self.path == "/sleep?level=1" else mark.unlink()
            self.answer(200, {})

    def stream(self, body: dict[str, object]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for delta, reason in (({"role": "assistant", "content": ""}, None), ({"content": "Hi"}, None), ({}, "stop")):
            choice = {"index": 0, "delta": delta, "finish_reason": reason, "logprobs": None, "token_ids": None}
            chunk = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "base", "choices": [choice]}
            self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
            if delta.get("content") and self.crashes():
                os._exit(1)
        self.wfile.write(b"data: " + json.dumps({"id": "c", "choices": [], "usage": USAGE}).encode() + b"\n\n")
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def crashes(self) -> bool:
        """Once in its life, counted across restarts."""
        mark = HOME / "crashed"
        if not BEHAVIOUR.get("crashes_once") or mark.exists():
            return False
        mark.touch()
        self.wfile.flush()
        print("EngineDeadError: EngineCore encountered an issue.", file=sys.stderr, flush=True)
        return True

    def is_allowed(self) -> bool:
        if self.headers.get("Authorization") == f"Bearer {KEY}":
            return True
        self.answer(401, {"error": "Unauthorized"})
        return False

    def answer(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True


def serve() -> None:
    (HOME / "argv.json").write_text(json.dumps(sys.argv))
    (HOME / "cmdline").write_bytes(b"\0".join(word.encode() for word in sys.orig_argv))
    if line := BEHAVIOUR.get("dies_at_start"):
        print(f"(EngineCore pid=1) ERROR {line}", file=sys.stderr, flush=True)
        print("RuntimeError: Engine core initialization failed. See root cause above.", file=sys.stderr, flush=True)
        sys.exit(1)
    time.sleep(BEHAVIOUR.get("slow_s", 0))
    Server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])), Handler).serve_forever()


if __name__ == "__main__":
    HOME = Path(os.environ["STAND_IN"])
    BEHAVIOUR = json.loads((HOME / "behaviour.json").read_text())
    KEY = os.environ.get("VLLM_API_KEY") or sys.argv[sys.argv.index("--api-key") + 1]
    serve()
