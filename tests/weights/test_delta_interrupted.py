"""A delta that is interrupted leaves nothing that could be taken for one, and the next run clears up."""

import os
import signal
import subprocess
import sys

import pytest

from chaku.errors import ModelError, UsageError
from chaku.weights.delta import make_delta
from processes import environment


def test_existing_output_is_only_replaced_when_told_and_only_after_success(tmp_path, pair):
    base, target = pair
    output = tmp_path / "delta"
    output.mkdir()
    (output / "mine").write_text("precious")
    with pytest.raises(UsageError, match=r"delta exists: .*--overwrite"):
        make_delta(base, target, output)
    with pytest.raises(ModelError, match="delta holds no weights, and is not replaced"):
        make_delta(base, target, output, overwrite=True)
    (output / "old.safetensors").write_text("weights")
    with pytest.raises(ModelError):
        make_delta(base, tmp_path / "nothing", output, overwrite=True)

    def fail(done_bytes, total_bytes):
        if done_bytes > total_bytes / 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_delta(base, target, output, overwrite=True, watch=fail)
    assert (output / "mine").read_text() == "precious"
    make_delta(base, target, output, overwrite=True)
    assert not (output / "mine").exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "delta", "target"]


STALLS = """
import pathlib, sys, time
from chaku.weights.convert import convert
from chaku.weights.delta import make_delta
def watch(done_bytes, total_bytes):
    print(done_bytes, flush=True)
    time.sleep(60)
base, target, output = map(pathlib.Path, sys.argv[1:])
make_delta(base, target, output, watch=watch)
"""


TERMINATED = """
import pathlib, sys, time
from chaku.cli.progress.passes import passing
from chaku.weights.delta import make_delta
def stalled(done_bytes, total_bytes):
    print(done_bytes, flush=True)
    time.sleep(60)
with passing("comparing"):
    make_delta(*map(pathlib.Path, sys.argv[1:]), watch=stalled)
"""


def test_a_terminated_run_leaves_nothing_at_all(tmp_path, pair):
    child = subprocess.Popen(
        [sys.executable, "-c", TERMINATED, *pair, tmp_path / "delta"],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert int(child.stdout.readline()) > 0
    child.terminate()
    assert child.wait() == 128 + signal.SIGTERM
    child.stdout.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "target"]


def test_a_killed_run_leaves_no_output_and_the_next_one_clears_up(tmp_path, pair):
    base, target = pair
    output = tmp_path / "delta"
    command = [sys.executable, "-c", STALLS, base, target, output]
    child = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
    assert int(child.stdout.readline()) > 0
    assert [path.name.startswith(".delta.") for path in tmp_path.glob(".*")] == [True]
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert not output.exists()
    make_delta(base, target, output)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "delta", "target"]


def test_an_old_output_that_a_killed_run_had_moved_away_comes_back(tmp_path, pair):
    base, target = pair
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    old = tmp_path / f".delta.{gone.pid}.abc.part.old"
    old.mkdir()
    with pytest.raises(UsageError, match="exists"):
        make_delta(base, target, tmp_path / "delta")
    assert (tmp_path / "delta").exists() and not old.exists()


def test_the_unfinished_output_of_another_name_stays(tmp_path, pair):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    being_written = tmp_path / f".delta.{gone.pid}.{os.getpid()}.abc.part"  # of a name that ends in a dot and a number
    being_written.mkdir()
    make_delta(*pair, tmp_path / "delta")
    assert being_written.exists()
