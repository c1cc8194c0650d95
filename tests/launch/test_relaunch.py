"""A run on this host is started again behind what may pass, not behind what stays, and ends when it is asked to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from click.testing import CliRunner

from chaku.cli.main import root
from chaku.launch import rehearsal, relaunch
from data.made import write_json
from processes import PATIENCE_S, environment
from train import small

# A process that does what the next word of its plan says: exit with a code, be killed by a signal (-9), wait (w), or
# wait without having learned what SIGTERM means (s).
# With + in front it leaves a newer checkpoint first. Every process of a start writes down that it was there.
PLAYED = """
import os, pathlib, signal, sys, time
folder, rank = pathlib.Path(sys.argv[1]), os.environ.get("RANK", "0")
starts = folder / f"starts-{rank}"
number = len(starts.read_text()) if starts.exists() else 0
starts.write_text("x" * (number + 1))
plan = (folder / f"plan-{rank}").read_text().split()
word = plan[min(number, len(plan) - 1)]
if word.startswith("+"):
    (folder / "checkpoints" / f"step-{number + 1}").mkdir(parents=True)
    word = word[1:]
if word == "w":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
    (folder / f"waits-{rank}").write_text(str(os.getpid()))
    time.sleep(60)
    sys.exit(70)
if word == "s":
    (folder / f"waits-{rank}").write_text(str(os.getpid()))
    time.sleep(60)
if int(word) < 0:
    os.kill(os.getpid(), -int(word))
sys.exit(int(word))
"""


def supervised(folder: Path, *plans: str, max_restarts: int | None = None) -> tuple[relaunch.Relauncher, list[str]]:
    for rank, plan in enumerate(plans):
        (folder / f"plan-{rank}").write_text(plan)
    said: list[str] = []
    command = [sys.executable, "-c", PLAYED, str(folder)]
    return relaunch.Relauncher(command, len(plans), folder, said.append, max_restarts), said


def starts(folder: Path, rank: int = 0) -> int:
    return len((folder / f"starts-{rank}").read_text())


@pytest.mark.parametrize(
    ("ended", "reason"),
    [
        ("75", "the run was asked to stop and has saved: restart 1"),
        ("-9", "the run was killed by SIGKILL: restart 1"),
        ("5", "the run ended with exit code 5: restart 1"),
        ("1", "the run ended with exit code 1: restart 1"),
    ],
)
def test_what_may_pass_is_followed_by_a_restart_that_says_why(tmp_path: Path, ended: str, reason: str) -> None:
    supervisor, said = supervised(tmp_path, f"+{ended} 0")
    assert supervisor.run() == 0
    assert said == [f"{reason}, the newest checkpoint is that of step 1"]


@pytest.mark.parametrize("code", [2, 3, 4, 130])
def test_what_would_come_again_is_not(tmp_path: Path, code: int) -> None:
    supervisor, said = supervised(tmp_path, f"+{code} 0")
    assert supervisor.run() == code
    assert starts(tmp_path) == 1 and said[0].endswith("another start would end the same way")


def test_starts_that_bring_no_newer_checkpoint_come_to_an_end(tmp_path: Path) -> None:
    supervisor, said = supervised(tmp_path, "+75 -9 +5 5 -9 5 0")
    assert supervisor.run() == 5
    assert starts(tmp_path) == 6 and said[-1].endswith("3 starts in a row brought no newer checkpoint")


def test_a_limit_of_restarts_holds(tmp_path: Path) -> None:
    supervisor, said = supervised(tmp_path, "+-9", max_restarts=2)
    assert supervisor.run() == 128 + 9
    assert starts(tmp_path) == 3 and said[-1].endswith("that was the last of 2 restarts")


def test_a_lost_process_is_named_and_all_are_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relaunch, "_PATIENCE_S", 0.3)  # the two that wait never end by themselves
    supervisor, said = supervised(tmp_path, "w 0", "-9 0", "w 0")
    assert supervisor.run() == 0
    assert [starts(tmp_path, rank) for rank in range(3)] == [2, 2, 2]
    assert said[0].startswith("process 1 of 3 was killed by SIGKILL: restart 1")


@pytest.mark.parametrize("does", ["w", "s"])
def test_asked_to_stop_it_passes_that_on_waits_for_the_save_and_starts_nothing(tmp_path: Path, does: str) -> None:
    supervisor, said = supervised(tmp_path, does, does)

    def ask() -> None:
        until = time.monotonic() + PATIENCE_S
        while len([one for one in tmp_path.glob("waits-?") if one.read_text()]) < 2 and time.monotonic() < until:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=ask)
    thread.start()
    assert supervisor.run() == 75
    thread.join()
    assert "waiting until the run has saved" in said[0]
    assert [starts(tmp_path, rank) for rank in range(2)] == [1, 1]
    assert not any(psutil.pid_exists(int((tmp_path / f"waits-{rank}").read_text())) for rank in range(2))


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is told on Linux only")
def test_killed_itself_it_leaves_no_run_behind(tmp_path: Path) -> None:
    (tmp_path / "plan-0").write_text("w")
    code = (
        "import sys; from pathlib import Path; from chaku.launch.relaunch import Relauncher;"
        " Relauncher([sys.executable, '-c', sys.argv[2], sys.argv[1]], 1, Path(sys.argv[1]), print).run()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), PLAYED], env=environment())
    until = time.monotonic() + PATIENCE_S
    while not (waits := tmp_path / "waits-0").exists() or not waits.read_text():
        assert time.monotonic() < until
        time.sleep(0.02)
    child = psutil.Process(int(waits.read_text()))
    parent.kill()
    parent.wait()
    child.wait(PATIENCE_S)


def test_the_moments_of_a_rehearsal_follow_from_its_seed_and_lie_within_the_run() -> None:
    assert rehearsal.draw(1, 6, 100) == rehearsal.draw(1, 6, 100) != rehearsal.draw(2, 6, 100)
    for seed in range(20):
        blows = rehearsal.draw(seed, 3, 10)
        assert [blow.step for blow in blows] == sorted(blow.step for blow in blows)
        assert all(0 <= blow.step < 10 for blow in blows)
        assert {blow.way for blow in blows} == {"all at once", "one process", "with notice"}


@pytest.mark.prove
def test_a_rehearsed_run_ends_in_the_bits_of_an_undisturbed_one(base: Path, small_set: Path, tmp_path: Path) -> None:
    """With real processes; several under torchrun's variables are tested in test_elastic, and by hand."""
    changes = {"max_steps": 100, "epochs": 40, "evaluate_every": 50, "save_in_background": True}
    calm = small.trained(small.recipe("calm", base, tmp_path, **changes), small_set)
    train = {**small.SETTINGS, **changes, "output": str(tmp_path)}
    recipe = write_json(tmp_path / "r.yaml", {"name": "run", "base": str(base), "data": str(small_set), "train": train})
    command = [sys.executable, "-m", "chaku", "launch", "train", str(recipe), "--on", "local", "--rehearse", "3"]
    done = subprocess.run(command, env=environment(OMP_NUM_THREADS="1"), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    kills = re.findall(r"launch: rehearsal: (SIG\w+) after step \d+ \((.*)\)", done.stderr)
    assert sorted(kills) == [("SIGKILL", "all at once"), ("SIGKILL", "one process"), ("SIGTERM", "with notice")]
    assert "launch: rehearsal: 3 kills, 3 restarts, and the run is through" in done.stderr
    assert "the run was asked to stop and has saved: restart" in done.stderr
    assert small.numbers(tmp_path / "run") == small.numbers(calm)
    assert small.weights(tmp_path / "run") == small.weights(calm)


def test_a_mistake_in_the_recipe_starts_nothing(base: Path, tmp_path: Path) -> None:
    recipe = write_json(tmp_path / "r.yaml", {"name": "run", "base": str(base), "train": {"lr": -1}})
    result = CliRunner().invoke(root, ["launch", "train", str(recipe), "--on", "local"])
    assert "lr" in str(result.exception) and not (tmp_path / "runs").exists()


def test_options_of_the_other_place_are_refused_by_name(tmp_path: Path) -> None:
    recipe = write_json(tmp_path / "r.yaml", {"name": "run"})
    shown = CliRunner().invoke(root, ["launch", "train", str(recipe), "--on", "local", "--spot", "--nodes", "2"])
    assert shown.exit_code == 2 and "--nodes, --spot means nothing with --on local" in shown.output
    shown = CliRunner().invoke(root, ["launch", "train", str(recipe), "--on", "sky", "--rehearse", "1"])
    assert shown.exit_code == 2 and "--rehearse means nothing with --on sky" in shown.output


@pytest.mark.parametrize(("ended", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), 9)", 128 + 9)])
def test_torchrun_ends_with_the_exit_code_of_the_process_that_failed(tmp_path: Path, ended: str, code: int) -> None:
    script = tmp_path / "one.py"
    script.write_text(f"import os, sys, time\nif os.environ['RANK'] == '1':\n    {ended}\ntime.sleep(60)\n")
    with torchrun(script) as process:
        assert process.wait(PATIENCE_S) == code


def test_torchrun_told_to_stop_waits_for_the_save_and_ends_with_75(tmp_path: Path) -> None:
    script = tmp_path / "one.py"
    script.write_text(
        "import os, pathlib, signal, sys, time\nown = pathlib.Path(sys.argv[0]).with_name(os.environ['RANK'])\n"
        "def stop(*_):\n    own.write_text('saved')\n    sys.exit(75)\n"
        "signal.signal(signal.SIGTERM, stop)\nown.write_text('ready')\ntime.sleep(60)\n"
    )
    with torchrun(script) as process:
        until = time.monotonic() + PATIENCE_S
        while not all((tmp_path / rank).exists() and (tmp_path / rank).read_text() for rank in "01"):
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.05)
        process.terminate()
        assert process.wait(PATIENCE_S) == 75
    assert [(tmp_path / rank).read_text() for rank in "01"] == ["saved", "saved"]


def test_a_signal_between_taking_and_guarding_the_lock_of_poll_leaves_it_free(tmp_path: Path) -> None:
    script = tmp_path / "poll.py"
    script.write_text(
        "import os, signal, subprocess, sys, time\n"
        "from torch.distributed.elastic.multiprocessing.api import SignalException\n"
        "from chaku.launch.torchrun import _stop\n"
        "signal.signal(signal.SIGTERM, _stop)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "def strike(frame, event, called):\n"
        "    if event == 'c_return' and called.__name__ == 'acquire' and frame.f_code.co_name == '_internal_poll':\n"
        "        sys.setprofile(None)\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "try:\n    sys.setprofile(strike)\n    child.poll()\n    time.sleep(60)\n"
        "except SignalException:\n    child.kill()\n    sys.exit(child.wait(10) + 9)\n"
        "sys.exit('the signal was lost')\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=PATIENCE_S)
    assert (done.returncode, done.stderr) == (0, "")


@contextmanager
def torchrun(script: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "chaku.launch.torchrun", "--standalone", "--nproc-per-node", "2", str(script)]
    process = subprocess.Popen(command, env=environment(OMP_NUM_THREADS="1"))
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE_S)
