"""How long a gateway takes from its start until `/health` answers, beside its libraries alone.

The peer is one route of FastAPI on uvicorn, in a process that has imported what the gateway needs at least: aiohttp,
SQLAlchemy and prometheus-client. The model is loaded beside the gateway's first answers, so it does not count.

    python bench/startup.py [MODEL] [--rounds 10]
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import os
import statistics
import subprocess
import sys
import tempfile
import time

from chaku.ports import free_port

LIBRARIES = """
import sys, aiohttp, fastapi, prometheus_client, sqlalchemy.dialects.sqlite, uvicorn
app = fastapi.FastAPI()
app.get("/health")(lambda: {"status": "ok"})
uvicorn.run(app, port=int(sys.argv[1]), log_level="error")
"""
GIVE_UP_S = 60.0


def seconds_to_answer(argv: list[str], port: int, environment: dict[str, str]) -> float:
    """From the start of a process until its /health answers, whatever it says."""
    started = time.perf_counter()
    process = subprocess.Popen(argv, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        while time.perf_counter() - started < GIVE_UP_S:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=GIVE_UP_S)
            with contextlib.suppress(OSError), contextlib.closing(connection):
                connection.request("GET", "/health")
                connection.getresponse().read()
                return time.perf_counter() - started
            time.sleep(0.005)
        raise SystemExit(f"{' '.join(argv)} did not answer within {GIVE_UP_S:g} s")
    finally:
        process.terminate()
        process.wait()


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=10)
    args = parser.parse_args()
    took: dict[str, list[float]] = {"chaku": [], "libraries": []}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "CHAKU_DATABASE": f"sqlite:///{folder}/bench.db"}
        for round_index in range(args.rounds + 1):
            port = free_port()
            chaku = [sys.executable, "-m", "chaku", "serve", args.model, "--port", str(port)]
            libraries = [sys.executable, "-c", LIBRARIES, str(port)]
            for name, argv in (("chaku", chaku), ("libraries", libraries)):
                seconds = seconds_to_answer(argv, port, environment)
                if round_index:  # the first round makes the database and compiles modules
                    took[name].append(seconds)
    for name, seconds_of in took.items():
        spread = f"{min(seconds_of):.2f} to {max(seconds_of):.2f}"
        print(f"{name:<10} {statistics.median(seconds_of):.2f} s ({spread}, {args.rounds} starts)")
    print(f"ratio      {statistics.median(took['chaku']) / statistics.median(took['libraries']):.2f}")


if __name__ == "__main__":
    main()
