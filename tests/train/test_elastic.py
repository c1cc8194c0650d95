"""A run goes on with another number of processes: the same order of rows, the same trajectory within float error."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from chaku.data.recipe import Recipe
from chaku.errors import TrainingError
from chaku.train.log import read_log
from train import small

STEPS = 6


def started_together(
    made: Recipe, data: Path, number: int, *, resume: bool, stop_behind: int, lost: int = -1
) -> set[int]:
    """Run on `number` processes as torchrun would start them; their exit codes. Process `lost` dies at the end."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def work(rank: int) -> None:
        os.environ.update(
            RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(number), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port)
        )

        def then(record: object) -> None:
            if getattr(record, "step", 0) == stop_behind:
                if rank == lost:
                    small.kill_self()
                if lost < 0:
                    os.kill(os.getpid(), 15)

        small.trained(made, data, resume=resume, heard=small.Heard(then))

    children = []
    for rank in range(number):
        if (child := os.fork()) == 0:
            os._exit(max(0, small.in_fork(lambda: work(rank))))  # noqa: B023 (this child leaves the loop here)
        children.append(child)
    return {os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children}


def test_four_then_two_then_three_processes_follow_one(base: Path, small_set: Path, tmp_path: Path) -> None:
    changes = {"max_steps": STEPS, "evaluate_every": 3, "save_every": 1, "save_in_background": True, "micro_rows": 1}
    alone = small.trained(small.recipe("alone", base, tmp_path, **changes), small_set)
    made = small.recipe("moved", base, tmp_path, **changes)
    assert started_together(made, small_set, 4, resume=False, stop_behind=2) == {75}
    assert started_together(made, small_set, 2, resume=True, stop_behind=4) == {75}
    assert started_together(made, small_set, 3, resume=True, stop_behind=STEPS) == {0}
    one, other = small.numbers(alone), small.numbers(tmp_path / "moved")
    assert [row[:2] + row[5:7] for row in one] == [row[:2] + row[5:7] for row in other]
    np.testing.assert_allclose([row[2:5] for row in one], [row[2:5] for row in other], rtol=2e-4)
    assert one[-1][-1] == pytest.approx(other[-1][-1], rel=2e-4)
    for name, value in small.weights(alone).items():
        moved = np.frombuffer(small.weights(tmp_path / "moved")[name], np.float32)
        np.testing.assert_allclose(np.frombuffer(value, np.float32), moved, rtol=1e-2, atol=2e-4)


def test_a_lost_process_ends_the_others_with_the_checkpoint_intact(base: Path, small_set: Path, tmp_path: Path) -> None:
    made = small.recipe("run", base, tmp_path, max_steps=STEPS, micro_rows=1)
    codes = started_together(made, small_set, 2, resume=False, stop_behind=3, lost=1)
    assert codes == {0, TrainingError.exit_code}  # the killed one is reported as 0 by `max` above
    folder = small.trained(made, small_set, resume=True)
    assert [row[0] for row in small.numbers(folder)] == list(range(1, STEPS + 1))


def test_a_process_that_is_asked_to_stop_stops_all_before_the_next_micro_batch(
    base: Path, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of three micro-batches in each process, the second of step 3 is the last that is computed."""
    from chaku.train.model import Trainee

    genuine, last = Trainee.summed_loss, 3 * 2 + 2

    def counted(self: Trainee, batch: object) -> object:
        if self.training:
            calls = tmp_path / f"calls-{os.environ['RANK']}"
            with calls.open("a") as file:
                file.write(".")
            if os.environ["RANK"] == "1" and calls.stat().st_size == last:
                os.kill(os.getpid(), signal.SIGTERM)
        return genuine(self, batch)  # type: ignore[arg-type]

    monkeypatch.setattr(Trainee, "summed_loss", counted)
    made = small.recipe("run", base, tmp_path, max_steps=4, micro_rows=1, save_every=100, evaluate_every=0)
    assert started_together(made, small_set, 2, resume=False, stop_behind=100) == {75}
    assert [(tmp_path / f"calls-{rank}").stat().st_size for rank in (0, 1)] == [last, last]
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-2"]
    assert [row[0] for row in small.numbers(tmp_path / "run")] == [1, 2]
    monkeypatch.undo()
    assert [row[0] for row in small.numbers(small.trained(made, small_set, resume=True))] == [1, 2, 3, 4]


_JOB = """
import os, sys
from pathlib import Path
from train import small

def then(record):
    if record.step == 4 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        small.kill_self()

base, data, output = map(Path, sys.argv[1:])
made = small.recipe("run", base, output, max_steps=8, micro_rows=1, save_every=2)
small.trained(made, data, resume=True, heard=small.Heard(then))
"""


@pytest.mark.prove
@pytest.mark.timeout(900)
def test_torchrun_starts_again_what_lost_a_process_and_ends_in_the_same_bits(
    base: Path, small_set: Path, tmp_path: Path
) -> None:
    job = tmp_path / "job.py"
    job.write_text(_JOB)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--max-restarts=1"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        command.append(f"--master-port={free.getsockname()[1]}")
    paths = os.pathsep.join((str(Path(__file__).parents[1]), *sys.path))
    done = subprocess.run(
        [*command, str(job), str(base), str(small_set), str(tmp_path)], capture_output=True, text=True, timeout=240,
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "failed (exitcode: -9)" in done.stderr
    resumed = [line["step"] for line in read_log(tmp_path / "run" / "log.jsonl") if line.get("event") == "resumed"]
    assert resumed == [2]
    calm = small.recipe("calm", base, tmp_path, max_steps=8, micro_rows=1, save_every=2)
    assert started_together(calm, small_set, 2, resume=False, stop_behind=100) == {0}
    assert small.numbers(tmp_path / "run") == small.numbers(tmp_path / "calm")
    assert small.weights(tmp_path / "run") == small.weights(tmp_path / "calm")


@pytest.mark.parametrize(("method", "precision"), [("full", "bf16"), ("lora", "fp32"), ("lora", "bf16")])
def test_two_processes_do_what_one_does(
    base: Path, small_set: Path, tmp_path: Path, method: str, precision: str
) -> None:
    changes = {"max_steps": 4, "save_every": 100, "method": method, "precision": precision, "micro_rows": 1, "lr": 1e-3}
    alone = small.trained(small.recipe("alone", base, tmp_path, **changes), small_set)
    made = small.recipe("two", base, tmp_path, **changes)
    assert started_together(made, small_set, 2, resume=False, stop_behind=100) == {0}
    losses = [[row[2] for row in small.numbers(folder)] for folder in (alone, tmp_path / "two")]
    np.testing.assert_allclose(*losses, rtol=2e-4 if precision == "fp32" else 2e-2)
    names = ({path.name for path in (folder / "final").iterdir()} for folder in (alone, tmp_path / "two"))
    assert next(names) == next(names)


@pytest.mark.parametrize(
    "levers",
    [{}, {"method": "lora"}, pytest.param({"activation_checkpointing": "full"}, marks=pytest.mark.prove)],
    ids=str,
)
def test_sample_prompts_are_answered_by_two_processes_as_by_one(
    base: Path, small_set: Path, tmp_path: Path, levers: dict[str, Any]
) -> None:
    changes: dict[str, Any] = {"max_steps": 3, "micro_rows": 1, "lr": 3e-2, "save_every": 100, "evaluate_every": 0}
    asked = {"sample_prompts": ["Who are you?", "hi"], "sample_every": 2}
    silent = small.trained(small.recipe("silent", base, tmp_path, **changes, **levers), small_set)
    alone = small.trained(small.recipe("alone", base, tmp_path, **changes, **asked, **levers), small_set)
    made = small.recipe("two", base, tmp_path, **changes, **asked, **levers)
    assert started_together(made, small_set, 2, resume=False, stop_behind=100) == {0}
    one, two = (
        [line for line in read_log(folder / "log.jsonl") if "answer" in line] for folder in (alone, tmp_path / "two")
    )
    assert [line["step"] for line in one] == [0, 0, 2, 2, 3, 3]
    assert one == two
    assert len({line["answer"] for line in one}) > 1
    assert small.numbers(silent) == small.numbers(alone)
