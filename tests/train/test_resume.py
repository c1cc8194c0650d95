"""Killed anywhere and resumed, a run ends in the same bits; what is broken is passed over by name."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest

from chaku.errors import ChakuError, RunInterrupted, TrainingError
from chaku.train import checkpoint, run
from train import small

STEPS = 8


@pytest.fixture(scope="module")
def undisturbed(base: Path, small_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = small.recipe("calm", base, tmp_path_factory.mktemp("calm"), max_steps=STEPS, keep_last=STEPS)
    folder = small.trained(made, small_set)
    assert len(small.numbers(folder)) == STEPS
    return folder


def check_equal(folder: Path, undisturbed: Path) -> None:
    assert small.numbers(folder) == small.numbers(undisturbed)
    assert small.weights(folder) == small.weights(undisturbed)


@pytest.mark.parametrize("step", range(1, STEPS))
def test_killed_behind_any_step_and_resumed_it_ends_in_the_same_bits(
    base: Path, small_set: Path, undisturbed: Path, tmp_path: Path, step: int
) -> None:
    """The step is in the log and not yet in a checkpoint."""
    made = small.recipe("run", base, tmp_path, max_steps=STEPS, save_in_background=step % 2 == 0)
    heard = small.Heard(lambda record: small.kill_self() if record.step == step else None)
    assert small.in_fork(lambda: small.trained(made, small_set, heard=heard)) == -signal.SIGKILL
    assert small.in_fork(lambda: small.trained(made, small_set, resume=True)) == 0
    check_equal(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("place", ["_publish", "_prune"])
def test_killed_while_a_checkpoint_is_written_and_resumed_it_ends_in_the_same_bits(
    base: Path, small_set: Path, undisturbed: Path, tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = small.recipe("run", base, tmp_path, max_steps=STEPS)
    calls: list[int] = []

    def killed(*_: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            small.kill_self()

    def work() -> None:
        genuine = getattr(checkpoint.Checkpoints, place)

        def instead(self: checkpoint.Checkpoints, *args: object) -> None:
            killed()
            genuine(self, *args)

        monkeypatch.setattr(checkpoint.Checkpoints, place, instead)
        small.trained(made, small_set)

    assert small.in_fork(work) == -signal.SIGKILL
    left = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert (".step-3.part" in left) == (place == "_publish")
    assert small.in_fork(lambda: small.trained(made, small_set, resume=True)) == 0
    check_equal(tmp_path / "run", undisturbed)


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def _flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [_cut, _flip, Path.unlink], ids=["truncated", "changed", "missing"])
@pytest.mark.parametrize("name", ["manifest.json", ".metadata", "__0_0.distcp"])
def test_a_broken_checkpoint_is_passed_over_with_its_reason(
    base: Path, small_set: Path, undisturbed: Path, tmp_path: Path, harm: object, name: str
) -> None:
    folder = tmp_path / "calm"
    shutil.copytree(undisturbed, folder)
    if name == "manifest.json" and harm is _flip:
        pytest.skip("a manifest with one changed bit may still be a true one")
    for step in range(8, STEPS + 1):
        shutil.rmtree(folder / "checkpoints" / f"step-{step}")
    harm(folder / "checkpoints" / "step-7" / name)  # type: ignore[operator]
    made = small.recipe("calm", base, tmp_path, max_steps=STEPS, keep_last=STEPS)
    heard = small.Heard()
    small.trained(made, small_set, resume=True, heard=heard)
    assert heard.lines[0].startswith("skipped checkpoint step-7: ")
    assert "manifest" in heard.lines[0] or name in heard.lines[0]
    assert heard.lines[1] == "resuming after step 6 of 8"
    check_equal(folder, undisturbed)


def test_sigterm_saves_and_exits_with_75(base: Path, small_set: Path, undisturbed: Path, tmp_path: Path) -> None:
    made = small.recipe("run", base, tmp_path, max_steps=STEPS, save_every=100)
    heard = small.Heard(lambda record: os.kill(os.getpid(), signal.SIGTERM) if record.step == 4 else None)
    assert small.in_fork(lambda: small.trained(made, small_set, heard=heard)) == RunInterrupted.exit_code == 75
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-4"]
    assert not (tmp_path / "run" / "final").exists()
    small.trained(made, small_set, resume=True)
    check_equal(tmp_path / "run", undisturbed)


@pytest.mark.parametrize(("step", "save_every", "kept"), [(1, 100, []), (3, 100, ["step-2"]), (3, 2, ["step-2"])])
def test_sigterm_ends_a_step_after_the_micro_batch_that_runs(
    base: Path, small_set: Path, undisturbed: Path, tmp_path: Path, step: int, save_every: int, kept: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from chaku.train.model import Trainee

    made = small.recipe("run", base, tmp_path, max_steps=STEPS, save_every=save_every)
    genuine = Trainee.summed_loss
    calls = 0

    def counted(self: Trainee, batch: object) -> object:
        nonlocal calls
        calls += self.training
        if calls == 3 * step - 1:  # the second of three micro-batches
            os.kill(os.getpid(), signal.SIGTERM)
        return genuine(self, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Trainee, "summed_loss", counted)
        with pytest.raises(RunInterrupted):
            small.trained(made, small_set)
    assert calls == 3 * step - 1
    folder = tmp_path / "run" / "checkpoints"
    assert ([path.name for path in folder.iterdir()] if folder.exists() else []) == kept
    small.trained(made, small_set, resume=True)
    check_equal(tmp_path / "run", undisturbed)


def test_the_last_and_the_best_are_kept(base: Path, small_set: Path, tmp_path: Path) -> None:
    made = small.recipe("run", base, tmp_path, max_steps=8, keep_last=2, keep_best=True, evaluate_every=1, lr=0.2)
    folder = small.trained(made, small_set)
    losses = {row[0]: row[-1] for row in small.numbers(folder)}
    best = min(losses, key=lambda step: losses[step])
    kept = {path.name for path in (folder / "checkpoints").iterdir()}
    assert kept == {"step-7", "step-8", f"step-{best}"}


def test_a_loss_that_is_no_number_stops_the_run_with_the_last_checkpoint_intact(
    base: Path, small_set: Path, tmp_path: Path
) -> None:
    import torch

    made = small.recipe("run", base, tmp_path, max_steps=STEPS)

    def break_weights(record: object) -> None:
        if getattr(record, "step", 0) == 3:
            with torch.no_grad():
                for each in broken:
                    each.fill_(float("nan"))

    broken: list[torch.Tensor] = []
    genuine = run.open_optimiser

    def watched(model: torch.nn.Module, config: object) -> torch.optim.AdamW:
        broken.extend(model.parameters())
        return genuine(model, config)  # type: ignore[arg-type]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "open_optimiser", watched)
        # the weights break after step 3 was measured, so its checkpoint holds them; step 2's is good
        with pytest.raises(TrainingError, match=r"step 4 gave loss nan .* on rows"):
            small.trained(made, small_set, heard=small.Heard(break_weights))
    assert [row[0] for row in small.numbers(tmp_path / "run")] == [1, 2, 3]
    assert checkpoint.check(tmp_path / "run" / "checkpoints" / "step-2").step == 2


@pytest.mark.parametrize("in_background", [False, True])
def test_a_full_disk_stops_the_run_with_the_last_checkpoint_intact(
    base: Path, small_set: Path, tmp_path: Path, in_background: bool
) -> None:
    made = small.recipe("run", base, tmp_path, max_steps=STEPS, save_in_background=in_background)

    def limit(record: object) -> None:
        if getattr(record, "step", 0) == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))

    def work() -> None:
        with pytest.raises(TrainingError, match=r"checkpoint.* could not be written: .* GB are free") as caught:
            small.trained(made, small_set, heard=small.Heard(limit))
        raise caught.value

    assert small.in_fork(work) == TrainingError.exit_code
    newest = max((tmp_path / "run" / "checkpoints").glob("step-*"), key=lambda path: int(path.name[5:]))
    assert checkpoint.check(newest).step == 2
    small.trained(made, small_set, resume=True)


def test_a_shard_that_does_not_arrive_is_no_checkpoint(
    base: Path, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a shared disk that shows another host's files late."""
    genuine = checkpoint.save_state

    def lost(*args: object, **options: object) -> None:
        genuine(*args, **options)  # type: ignore[arg-type]
        for part in tmp_path.glob("run/checkpoints/.step-3.part"):
            (part / "__0_0.distcp").unlink()

    monkeypatch.setattr(checkpoint, "save_state", lost)
    with pytest.raises(TrainingError, match=r"__0_0\.distcp is not in .*: do all processes see the same disk"):
        small.trained(small.recipe("run", base, tmp_path, max_steps=STEPS), small_set)
    assert checkpoint.check(tmp_path / "run" / "checkpoints" / "step-2").step == 2
    assert not (tmp_path / "run" / "checkpoints" / "step-3").exists()


def test_a_disk_that_is_too_small_is_refused_before_the_start(
    base: Path, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(TrainingError, match=r"GB are free: make room, or lower train\.keep_last"):
        small.trained(small.recipe("run", base, tmp_path), small_set)


def test_a_shard_that_can_not_be_read_is_named(base: Path, small_set: Path, tmp_path: Path) -> None:
    copy = tmp_path / "set"
    shutil.copytree(small_set, copy)
    shard = copy / "rows" / "train-00000.arrow"
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2])
    with pytest.raises(ChakuError, match=r"train-00000\.arrow can't be read"):
        small.trained(small.recipe("run", base, tmp_path), copy)


def test_what_was_passed_over_never_counts_for_keeping(base: Path, small_set: Path, tmp_path: Path) -> None:
    """Both kept checkpoints are corrupt: those that the resumed run saves have lower numbers, and must stay."""
    made = small.recipe("run", base, tmp_path, max_steps=8)
    checkpoints = small.trained(made, small_set) / "checkpoints"
    for name in ("step-7", "step-8"):
        (shard,) = (checkpoints / name).glob("*.distcp")
        shard.write_bytes(shard.read_bytes()[:-1] + b"?")
    heard = small.Heard(lambda record: os.kill(os.getpid(), signal.SIGTERM) if record.step == 3 else None)
    with pytest.raises(RunInterrupted):
        small.trained(made, small_set, resume=True, heard=heard)
    assert sorted(path.name for path in checkpoints.iterdir()) == [
        "invalid-step-7", "invalid-step-8", "step-2", "step-3",
    ]  # fmt: skip
    assert checkpoint.newest_in(checkpoints)[0] == checkpoint.Checkpoint(checkpoints / "step-3", 3, None)


def test_hashes_are_taken_while_files_are_written(base: Path, small_set: Path, tmp_path: Path) -> None:
    from chaku.records import describe_file

    folder = small.trained(small.recipe("run", base, tmp_path, max_steps=1), small_set) / "checkpoints" / "step-1"
    described = json.loads((folder / "manifest.json").read_bytes())["files"]
    assert described == {path.name: describe_file(path) for path in folder.iterdir() if path.name != "manifest.json"}
    assert len(described) == 2


def test_every_process_hashes_its_shard_and_checks_a_share(
    base: Path, small_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from chaku import records
    from chaku.train.parallel import World

    folder = tmp_path / "checkpoints"

    def work(world: World) -> None:
        from chaku.train.base import find_base
        from chaku.train.config import TrainConfig
        from chaku.train.optimiser import open_optimiser
        from chaku.train.parallelize import open_trainee

        read: list[str] = []
        genuine = records.sha256_file
        monkeypatch.setattr(records, "sha256_file", lambda path: read.append(path.name) or genuine(path))
        config = TrainConfig(**small.SETTINGS)
        model = open_trainee(find_base(str(base)), config, 256, world)
        saved = checkpoint.Checkpoints(folder, world)
        saved.save(1, model, open_optimiser(model, config), None)
        saved.finish()
        assert read == []  # written, hashed and published without reading a byte again
        newest, skipped = saved.newest()
        assert newest is not None and newest.step == 1 and not skipped
        assert len(read) == (2 if world.is_rank_zero else 1)  # .metadata and two shards
        saved.close()

    assert small.together(work, 2) == [0, 0]
