"""The processes that train together: how long they wait for each other, and what CUDA is asked for."""

from __future__ import annotations

import os
import socket
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist

from chaku.train import parallel
from chaku.train.config import TrainConfig
from chaku.train.parallel import open_world
from chaku.train.parallelize import slow_arithmetic
from chaku.train.placement import compiles
from chaku.train.presets import PRESETS
from train import small


def collective_timeout() -> timedelta:
    group = dist.group.WORLD
    assert group is not None
    timeout: timedelta = group._get_backend(torch.device("cpu")).options._timeout
    return timeout


def test_collectives_wait_hours_for_a_model_and_minutes_for_a_step() -> None:
    assert parallel.STEP_TIMEOUT <= timedelta(minutes=10) < timedelta(hours=1) <= parallel.LOADING_TIMEOUT
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def work(rank: int) -> None:
        os.environ.update(RANK=str(rank), WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        with open_world(TrainConfig(device="cpu")) as world:
            assert collective_timeout() == parallel.LOADING_TIMEOUT
            with world.step_timeout():
                assert collective_timeout() == parallel.STEP_TIMEOUT
            assert collective_timeout() == parallel.LOADING_TIMEOUT
            assert world.any_process(world.rank == 1) and not world.any_process(False)
            world.barrier()

    children = []
    for rank in (0, 1):
        if (child := os.fork()) == 0:
            os._exit(max(0, small.in_fork(lambda: work(rank))))  # noqa: B023 (this child leaves the loop here)
        children.append(child)
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]


@pytest.mark.parametrize("yours", [None, "PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_cuda_is_asked_for_segments_that_grow_unless_you_said_otherwise(
    yours: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "1")
    if yours is not None:
        monkeypatch.setenv(yours, "max_split_size_mb:128")
    else:
        monkeypatch.setenv("PYTORCH_ALLOC_CONF", "")  # put back what the world sets, at the end
        monkeypatch.delenv("PYTORCH_ALLOC_CONF")
    with open_world(TrainConfig(device="cpu")):
        if yours is None:
            assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"
        else:
            assert {os.environ.get(name) for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF")} == {
                "max_split_size_mb:128", None,
            }  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_compiled_on_cuda_except_over_4_bit_layers(name: str) -> None:
    config = TrainConfig.model_validate(PRESETS[name].train)
    assert compiles(config, "cuda") == (config.method != "qlora")
    assert not compiles(config, "cpu")


@pytest.mark.parametrize(
    ("capability", "device_type", "precision", "is_slow"),
    [("AVX2", "cpu", "bf16", True), ("AVX2", "cpu", "fp32", False), ("AVX512", "cpu", "bf16", False),
     ("AVX2", "cuda", "bf16", False)],
)  # fmt: skip
def test_a_cpu_without_fast_bf16_says_which_precision_to_set(
    capability: str, device_type: str, precision: str, is_slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    warning = slow_arithmetic(TrainConfig.model_validate({"precision": precision}), device_type)
    assert ("precision: fp32" in warning if warning else False) == is_slow
