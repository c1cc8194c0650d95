"""The library against training written out flat, and against losses that were committed."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from train import small

REFERENCE = Path(__file__).with_name("trajectory.json")


def test_the_flat_script_has_the_same_losses_to_the_last_digit(base: Path, small_set: Path, tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("train_flat", Path("examples/train_flat.py").absolute())
    assert spec is not None and spec.loader is not None
    flat = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(flat)
    folder = small.trained(small.recipe("run", base, tmp_path, loss_chunk_tokens=0, epochs=3), small_set)
    words = f"{base} {small_set} {tmp_path / 'flat'} --epochs 3 --batch-rows 5 --micro-rows 2 --lr 3e-3"
    losses = flat.train(flat.parse(words.split()))
    assert losses == [row[2] for row in small.numbers(folder)]
    from safetensors.torch import load_file

    own = load_file(folder / "final" / "model.safetensors")
    for name, value in load_file(tmp_path / "flat" / "model.safetensors").items():
        assert torch.equal(value, own[name])


def test_fifty_steps_follow_the_committed_trajectory(base: Path, small_set: Path, tmp_path: Path) -> None:
    """Guards against drift that nobody notices, such as behind an upgrade of torch or transformers.

    Written by: CHAKU_WRITE_TRAJECTORY=1 python -m pytest tests/train/test_flat.py
    """
    import os

    made = small.recipe("run", base, tmp_path, epochs=20, max_steps=50, save_every=100, evaluate_every=10)
    found = [row[:5] + row[7:] for row in small.numbers(small.trained(made, small_set))]
    if os.environ.get("CHAKU_WRITE_TRAJECTORY"):
        REFERENCE.write_text(json.dumps(found, indent=0))
    expected = json.loads(REFERENCE.read_text())
    assert len(found) == 50
    assert [row[:2] for row in found] == [tuple(row[:2]) for row in expected]
    np.testing.assert_allclose([row[2:5] for row in found], [row[2:5] for row in expected], rtol=2e-3)
    measured = [[row[5] for row in rows if row[5] is not None] for rows in (found, expected)]
    assert measured[0] == pytest.approx(measured[1], rel=2e-3)
