"""How long the worst bodies stop a running stream, and what memory they take: python bench/hostile.py [--rounds N].

`chaku serve` runs as a process with a scripted model. One stream sends a word every few milliseconds; beside it each
body is sent once a round. The pause is the longest between two pieces of that stream, the memory the peak of the
process above what it held before.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from chaku_server import serving  # type: ignore[import-not-found]
from hostile_bodies import BOMB, HOSTILE, MiB  # type: ignore[import-not-found]
from steady_stream import (  # type: ignore[import-not-found]
    memory_bytes,
    request_of,
    reset_peak,
    send,
    steady_stream,
    write_script,
)


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, ", end="")
    print(f"load {os.getloadavg()[0]:.1f}, {args.rounds} rounds\n")
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        with serving(home, f"scripted=scripted:{write_script(home)}") as server:
            port, pid = int(server.url.rsplit(":", 1)[1]), server.process.pid
            with steady_stream(port) as stream:
                stream.reset()
                time.sleep(3)
                print(f"Longest pause in 3 s without any: {1000 * stream.pause_s():.0f} ms\n")
                print("| body | MiB | status | pause, ms: median (longest) | memory, MiB |")
                print("|---|---|---|---|---|")
                for hostile in (*HOSTILE, BOMB):
                    for size in sorted({1, hostile.largest_mib}):
                        pauses, peaks, status = [], [], 0
                        request = request_of(hostile, size * MiB)
                        for _ in range(args.rounds):
                            before = memory_bytes(pid, peak=False)
                            reset_peak(pid)
                            stream.reset()
                            status, _ = send(port, request)
                            pauses.append(1000 * stream.pause_s())
                            peaks.append((memory_bytes(pid, peak=True) - before) / MiB)
                        pause = f"{statistics.median(pauses):.0f} ({max(pauses):.0f})"
                        print(f"| {hostile.name} | {size} | {status} | {pause} | {max(peaks):.0f} |", flush=True)


if __name__ == "__main__":
    main()
