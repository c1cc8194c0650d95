"""What needs a GPU: flash attention by document against the masked reference, compiled layers, a resumed run."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from chaku.train.base import find_base
from chaku.train.batches import Batches
from chaku.train.config import TrainConfig
from chaku.train.model import Trainee
from chaku.train.parallel import World
from chaku.train.parallelize import open_trainee
from chaku.train.rows import Rows
from train import small

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU")]
SETTINGS: dict[str, Any] = {**small.SETTINGS, "precision": "bf16", "device": "cuda", "compile": False}


@pytest.fixture(scope="module")
def wide_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Heads of 64 numbers: the kernel takes no narrower ones than 8, and common models have these."""
    return small.write_base(tmp_path_factory.mktemp("wide") / "llama", hidden_size=256, intermediate_size=512)


def opened(base: Path, **changes: Any) -> Trainee:
    config = TrainConfig(**{**SETTINGS, **changes})
    return open_trainee(find_base(str(base)), config, 256, World.alone(torch.device("cuda")))


def gradients(model: Trainee, data: Path, index: int = 0) -> dict[str, torch.Tensor]:
    model.zero_grad()
    step = Batches(Rows(data, "train"), 8, 4, 0, length=256).step(index)
    for batch in step.micro_batches:
        torch.autograd.backward(model.summed_loss(batch.to(torch.device("cuda")))[0] / step.weight)
    return {name: each.grad.float().clone() for name, each in model.named_parameters() if each.grad is not None}


def apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """The worst relative distance of two gradients."""
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).norm() / one[name].norm()) for name in one)


def test_flash_attention_by_document_equals_the_masked_reference(wide_base: Path, small_set: Path) -> None:
    assert opened(wide_base).varlen
    masked = gradients(opened(wide_base, attention="sdpa"), small_set)
    assert apart(masked, gradients(opened(wide_base, attention="varlen"), small_set)) < 0.03
    exact = gradients(opened(wide_base, precision="fp32"), small_set)
    assert apart(exact, masked) < 0.05


def test_documents_do_not_see_each_other_in_flash_attention(wide_base: Path, small_set: Path) -> None:
    from chaku.train.batches import micro_batch

    model = opened(wide_base).eval()
    rows = Rows(small_set, "train")
    row = next(rows[number] for number in range(len(rows)) if rows[number].doc_ids[-1] >= 2)
    second = torch.from_numpy(row.doc_ids == 1)
    batch = micro_batch([row]).to(torch.device("cuda"))
    with torch.no_grad(), torch.autocast("cuda", torch.bfloat16):
        before = model.hidden(batch)[0][second]
        batch.ids[0, ~second] = (batch.ids[0, ~second] + 17) % 256
        after = model.hidden(batch)[0][second]
    assert torch.equal(before, after)


def test_compiled_layers_give_the_same_gradients_and_are_compiled_once(
    wide_base: Path, small_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = gradients(opened(wide_base), small_set)
    model = opened(wide_base, compile=True)
    assert apart(plain, gradients(model, small_set)) < 0.03
    monkeypatch.setattr(torch._dynamo.config, "error_on_recompile", True)
    for index in (1, 2):
        gradients(model, small_set, index)


def test_a_run_on_a_gpu_killed_and_resumed_follows_the_same_losses(
    wide_base: Path, small_set: Path, tmp_path: Path
) -> None:
    """In processes of their own: CUDA does not survive a fork."""
    import json
    import subprocess
    import sys

    from data.made import write_json

    def recipe(name: str) -> Path:
        train = {**SETTINGS, "output": str(tmp_path), "max_steps": 8}
        return write_json(
            tmp_path / f"{name}.yaml", {"name": name, "base": str(wide_base), "data": str(small_set), "train": train}
        )

    def chaku(*words: str, until: int | None = None) -> int:
        child = subprocess.Popen([sys.executable, "-m", "chaku", "train", *words])
        log = tmp_path / "cut" / "log.jsonl"
        while until is not None and child.poll() is None:
            if log.exists() and len(log.read_bytes().splitlines()) >= until:
                child.send_signal(signal.SIGKILL)
                break
        return child.wait()

    assert chaku(str(recipe("calm"))) == 0
    assert chaku(str(recipe("cut")), until=3) == -signal.SIGKILL
    assert chaku(str(recipe("cut")), "--resume", "auto") == 0
    calm, cut = (small.numbers(tmp_path / name) for name in ("calm", "cut"))
    assert [row[2] for row in cut] == pytest.approx([row[2] for row in calm], rel=1e-3)
    manifest = json.loads((tmp_path / "cut" / "manifest.json").read_text())
    assert "NVIDIA" in manifest["result"]["hardware"]
