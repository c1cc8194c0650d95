"""A build that is killed or interrupted at any moment is resumed to the same bytes, and leaves no process."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from chaku.data import phases
from chaku.data.build import build
from chaku.data.recipe import DataConfig
from chaku.data.watcher import Silent
from data.made import built, digests, sharegpt, write_json
from processes import PATIENCE_S

SRC = Path(__file__).parents[2] / "src"
_RUN = """
import sys
from pathlib import Path
from chaku.data import phases
from chaku.data.build import build
from chaku.data.recipe import DataConfig
if __name__ == "__main__":
    phases._RECORDS_PER_SHARD = 25
    out, tokenizer, processes, *inputs = sys.argv[1:]
    config = DataConfig(inputs=tuple(map(Path, inputs)), tokenizer=tokenizer, context=512, test_fraction=0.1)
    build(config, Path(out), name="made", processes=int(processes))
"""


def _num_entries(folder: Path) -> int:
    return sum(len(folders) + len(files) for _, folders, files in os.walk(folder))


def _has_written(process: subprocess.Popen[bytes], folder: Path, num_more: int) -> bool:
    """Wait until so many more entries lie in the folder; the moment is one of the work and not of the clock.

    False where the process ended first.
    """
    wanted = _num_entries(folder) + num_more
    while process.poll() is None:
        if _num_entries(folder) >= wanted:
            return True
        time.sleep(0.002)
    return False


def test_killed_at_random_moments_and_resumed_it_gives_the_same_bytes(tmp_path, tokenizer, mixed, monkeypatch):
    monkeypatch.setattr(phases, "_RECORDS_PER_SHARD", 25)
    built(tmp_path / "whole", tokenizer, *mixed, test_fraction=0.1)
    script = tmp_path / "run.py"
    script.write_text(_RUN)
    command = [sys.executable, str(script), str(tmp_path / "killed"), str(tokenizer), "2", *map(str, mixed)]
    chooser = random.Random(11)
    kills = 0
    for attempt in range(30):
        process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(SRC)}, stderr=subprocess.PIPE)
        if attempt < 4 and _has_written(process, tmp_path / "killed", chooser.randint(1, 8)):
            time.sleep(chooser.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
        _, complaint = process.communicate()
        if process.returncode == -signal.SIGKILL:
            kills += 1
            continue
        assert process.returncode == 0, complaint.decode()
        break
    assert kills >= 3
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")


@pytest.fixture(scope="module")
def whole(tmp_path_factory, tokenizer, mixed):
    """Digests of the set as one run builds it, in shards of 60 records."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(phases, "_RECORDS_PER_SHARD", 60)
        return digests(built(tmp_path_factory.mktemp("whole") / "set", tokenizer, *mixed).folder)


@pytest.mark.parametrize("moment", ["prepare-00001", "duplicates.npy", "tokenise-00001", "pack-train-00000", "built"])
def test_an_interruption_between_any_two_steps_costs_only_the_step(
    tmp_path, tokenizer, mixed, whole, monkeypatch, moment
):
    """Ends the build right after `moment` came to be, then counts what the second run works on."""
    monkeypatch.setattr(phases, "_RECORDS_PER_SHARD", 60)

    class Interrupted(Exception):
        pass

    def stopping(real: Callable[[Path, Path], Path]) -> Callable[[Path, Path], Path]:
        def put(self: Path, target: Path) -> Path:
            if moment == "built" and self.parent.name == "built" and self.name == "ledger":
                raise Interrupted
            result = real(self, target)
            if Path(target).name == moment:
                raise Interrupted
            return result

        return put

    reals = {name: getattr(Path, name) for name in ("replace", "rename")}  # files are replaced, folders renamed
    for name, real in reals.items():
        monkeypatch.setattr(Path, name, stopping(real))
    with pytest.raises(Interrupted):
        built(tmp_path / "cut", tokenizer, *mixed)
    for name, real in reals.items():
        monkeypatch.setattr(Path, name, real)
    (work,) = (path for path in (tmp_path / "cut/.work").iterdir() if path.is_dir())
    stamps = {path: path.stat().st_mtime_ns for path in work.rglob("*.parquet") if "built" not in path.parts}

    class Watcher(Silent):
        def __init__(self):
            self.phases = []

        def advanced(self, phase, done, counts):
            self.phases.append(phase)

    watcher = Watcher()
    config = DataConfig(inputs=tuple(mixed), tokenizer=str(tokenizer), context=512, test_fraction=0.2)
    build(config, tmp_path / "cut", name="made", processes=1, watcher=watcher)
    assert digests(tmp_path / "cut") == whole
    expected = {"prepare-00001": 1, "duplicates.npy": 0, "tokenise-00001": 0, "pack-train-00000": 0, "built": 0}
    assert watcher.phases.count("prepare") == expected[moment]
    if moment == "built":
        assert watcher.phases == []
    assert stamps


def test_a_worker_does_not_outlive_a_killed_build(tmp_path, tokenizer):
    source = write_json(tmp_path / "big.json", sharegpt(4000, most_rounds=9))
    script = tmp_path / "run.py"
    script.write_text(_RUN)
    command = [sys.executable, str(script), str(tmp_path / "set"), str(tokenizer), "2", str(source)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(SRC)}, start_new_session=True)
    deadline = time.monotonic() + PATIENCE_S
    while not list(tmp_path.glob("set/.work/*/prepare-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    group = os.getpgid(process.pid)
    process.kill()
    process.wait()
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("workers lived on")
