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

from chaku_server import serving
from hostile_bodies import BOMB, HOSTILE, MiB
from steady_stream import memory_bytes, reset_peak, send, steady_stream, write_script


def main() -> None:
    """Measure and print a table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--mib", type=int, action="append", help="sizes of the bodies (1 and 32)")
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
                for size in args.mib or [1, 32]:
                    for hostile in (*HOSTILE, BOMB):
                        pauses, peaks, status = [], [], 0
                        for _ in range(args.rounds):
                            before = memory_bytes(pid, peak=False)
                            reset_peak(pid)
                            stream.reset()
                            status, _ = send(port, hostile, size * MiB)
                            pauses.append(1000 * stream.pause_s())
                            peaks.append((memory_bytes(pid, peak=True) - before) / MiB)
                        pause = f"{statistics.median(pauses):.0f} ({max(pauses):.0f})"
                        print(f"| {hostile.name} | {size} | {status} | {pause} | {max(peaks):.0f} |", flush=True)


if __name__ == "__main__":
    main()
