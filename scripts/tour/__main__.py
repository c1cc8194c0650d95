"""`make tour`: the whole story in one command, each step a command that is printed before it runs.

    python scripts/tour --name Illari [--folder tour] [--toy] [--no-open]

Killed anywhere, the same command resumes. The end is FOLDER/report.html, and the page open on Compare.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from report import write_report
from steps import PYTHON, TOY, Size, Step, Tour

from chaku.engines.process import die_with_parent
from chaku.ports import free_port
from chaku.records import atomic_write

PATIENCE_S = 300.0


def environment(tour: Tour) -> dict[str, str]:
    """The tour has a store of its own; models come from the user's cache."""
    folder = tour.folder.resolve()
    return os.environ | {"CHAKU_DATA": str(folder / "data"), "CHAKU_DATABASE": f"sqlite:///{folder / 'chaku.db'}"}


def real(command: tuple[str, ...]) -> list[str]:
    """The command as it is run: this interpreter, and its chaku."""
    if command[0] == PYTHON:
        return [sys.executable, *command[1:]]
    return [sys.executable, "-m", *command]


def shown(command: tuple[str, ...]) -> None:
    print(f"\n$ {shlex.join(command)}", flush=True)


def start(command: tuple[str, ...], tour: Tour, log: str) -> subprocess.Popen[bytes]:
    """Start a server; its output goes to a file."""
    shown(command)
    with (tour.folder / log).open("ab") as file:
        words = [*real(command), "--exit-with-parent"]  # a killed tour leaves no server behind
        return subprocess.Popen(words, env=environment(tour), stdout=file, stderr=file)


def begin(command: tuple[str, ...], tour: Tour) -> subprocess.Popen[str]:
    """Begin a step's command. On Linux it ends with the tour, or it would hold its files against the next one."""
    return subprocess.Popen(
        real(command), env=environment(tour), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        preexec_fn=functools.partial(die_with_parent, os.getpid()),
    )  # fmt: skip


def end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextlib.contextmanager
def gateway(tour: Tour) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The gateway with its two workers, in whose list the workers come second and third."""
    processes = [start(tour.gateway(), tour, "gateway.log")]
    try:
        wait_for(tour, {"base"}, processes)
        for number in (1, 2):
            processes.append(start(tour.worker(number), tour, f"worker-{number}.log"))
        wait_for(tour, {"base", "tuned"}, processes)
        yield processes
    finally:
        for process in reversed(processes):
            end(process)


def wait_for(tour: Tour, names: set[str], processes: list[subprocess.Popen[bytes]]) -> None:
    """Until these models answer. Raises SystemExit where a process ended or too much time passed."""
    deadline = time.monotonic() + PATIENCE_S
    missing = names
    while missing and time.monotonic() < deadline:
        if any(process.poll() is not None for process in processes):
            raise SystemExit(f"a server ended; its log is in {tour.folder}")
        missing = {name for name in names if not answers(tour, name)}
        time.sleep(0.5)
    if missing:
        raise SystemExit(f"{', '.join(missing)} did not answer; the logs are in {tour.folder}")


def answers(tour: Tour, name: str) -> bool:
    body = {"model": name, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1}
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{tour.url}/v1/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=60):
            return True
    except OSError:
        return False


def run_step(tour: Tour, step: Step, processes: list[subprocess.Popen[bytes]]) -> None:
    """Run what is not there yet, and keep what was said and how long it took."""
    record = tour.folder / "steps" / f"{step.name}.json"
    print(f"\n== {step.title}", flush=True)
    begun, said, victims = time.time(), list[str](), list[str]()
    for number, command in enumerate(step.commands):
        shown(command)
        result = step.results[number] if step.results else None
        if result is not None and result.exists():
            print(f"{result} is there already")
            continue
        with begin(command, tour) as child:
            try:
                if step.kills_worker:
                    killer = threading.Thread(target=kill_a_worker, args=(tour, processes, child, victims), daemon=True)
                    killer.start()
                assert child.stdout is not None
                for line in child.stdout:
                    print(line, end="", flush=True)
                    said.append(line)
                code = child.wait()
            except BaseException:
                child.terminate()
                raise
        if code:
            raise SystemExit(f"{shlex.join(command)} ended with {code}; the same command resumes the tour")
    commands = [shlex.join(command) for command in step.commands]
    facts = {"title": step.title, "commands": commands, "killed": victims}
    facts["seconds"] = round(time.time() - begun, 1)
    with atomic_write(record) as file:
        file.write(json.dumps({**facts, "said": "".join(said)[-8000:]}, indent=1).encode())


def kill_a_worker(
    tour: Tour, processes: list[subprocess.Popen[bytes]], child: subprocess.Popen[str], victims: list[str]
) -> None:
    """End one of the two workers for good as soon as the evaluation has its first answer, and note its name."""
    answers_file = tour.folder / "eval" / "answers.jsonl"
    while child.poll() is None:
        if len(processes) == 3 and answers_file.exists() and answers_file.stat().st_size:
            victim = processes.pop(1)
            victim.kill()
            victims.append("worker-1")
            print(f"(tour) kill -9 {victim.pid}: worker-1 is gone", flush=True)
            return
        time.sleep(0.02)


def main() -> None:
    parser = argparse.ArgumentParser(description="The whole story in one command.")
    parser.add_argument("--name", default="Kusi", help="what the model is called")
    parser.add_argument("--folder", type=Path, default=Path("tour"))
    parser.add_argument("--base", default="smollm2-135m")
    parser.add_argument("--toy", action="store_true", help="only show that every step runs")
    parser.add_argument("--no-open", action="store_true", help="end with the report, without the page")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("the tour was asked to stop; the same command resumes it"))
    tour = Tour(given.folder, given.name, TOY if given.toy else Size(), free_port(), given.base)
    tour.folder.mkdir(parents=True, exist_ok=True)
    tour.write_files()
    steps = tour.steps()
    left = [step for step in steps if not (tour.folder / "steps" / f"{step.name}.json").exists()]
    first_served = next(number for number, step in enumerate(steps) if step.needs_gateway)
    before = [step for step in left if steps.index(step) < first_served]
    for step in before:
        run_step(tour, step, [])
    served = [step for step in left if step.needs_gateway]
    with contextlib.ExitStack() as stack:
        processes = stack.enter_context(gateway(tour)) if served or not given.no_open else []
        for step in left:
            if step not in before:
                run_step(tour, step, processes)
        report = write_report(tour, steps)
        print(f"\n{report} tells it all", flush=True)
        if not given.no_open:
            page = f"{tour.url}/compare?models=base,tuned"
            print(f"{page} shows both models side by side; Ctrl-C ends the tour", flush=True)
            webbrowser.open(page)
            with contextlib.suppress(KeyboardInterrupt):
                processes[0].wait()


if __name__ == "__main__":
    main()
