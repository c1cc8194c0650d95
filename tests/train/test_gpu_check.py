"""scripts/gpu-check, rehearsed at toy size: what its first hour on a GPU rests on."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "scripts" / "gpu-check"


@pytest.fixture(scope="module")
def check() -> ModuleType:
    loader = SourceFileLoader("gpu_check", str(SCRIPT))
    spec = importlib.util.spec_from_loader("gpu_check", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_check"] = module
    loader.exec_module(module)
    return module


def test_a_section_that_fails_or_hangs_hides_no_other(check: ModuleType) -> None:
    def fails(_toy: bool) -> None:
        print("before")
        raise RuntimeError("boom")

    def unverified(_toy: bool) -> None:
        raise check.NotVerified("QLoRA not verified: bitsandbytes is not here")

    began = time.monotonic()
    works = [fails, lambda _: time.sleep(60), unverified, lambda _: print("fine")]
    limits = [10, 0.3, 10, 10]
    outcomes = [
        check.tried(check.Section(f"s{number}", work, limit), False)
        for number, (work, limit) in enumerate(zip(works, limits, strict=True))
    ]
    assert [outcome.state.split(" (")[0] for outcome in outcomes] == ["FAILED", "FAILED", "not verified", "passed"]
    assert time.monotonic() - began < 30
    text = check.report(outcomes, False)
    assert "boom" in text and "before" in text and "QLoRA not verified" in text and "cut off after 0.3 s" in text


def test_all_sections_together_take_at_most_eight_minutes(check: ModuleType) -> None:
    assert sum(section.limit_s for section in check.SECTIONS) <= 480


def rehearsed(out: Path, *sections: str) -> str:
    """The report of a rehearsal at toy size that failed nowhere."""
    words = [word for name in sections for word in ("--only", name)]
    done = subprocess.run(
        [sys.executable, SCRIPT, "--toy", "--out", out, *words], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + (out.read_text() if out.exists() else done.stderr)
    return out.read_text()


@pytest.mark.timeout(600)
def test_the_rehearsal_runs_its_quick_sections_and_writes_its_report(tmp_path: Path) -> None:
    text = rehearsed(tmp_path / "result.md", "environment", "gpu tests", "kernels", "two ranks", "profile")
    for name in ("environment", "kernels", "profile"):
        assert f"| {name} | passed |" in text
    assert "SDPA by math: " in text
    if not torch.cuda.is_available():
        assert "| gpu tests | not verified |" in text and "| two ranks | not verified |" in text


@pytest.mark.prove
@pytest.mark.timeout(1200)
def test_the_rehearsal_trains_with_every_method_and_measures_speed(tmp_path: Path) -> None:
    text = rehearsed(tmp_path / "result.md", "methods", "speed")
    assert "| methods | passed |" in text and "| speed | passed |" in text
    assert "full: 10 steps on one batch, loss" in text and "lora: 10 steps on one batch, loss" in text
    assert re.search(r"packed +[\d,]+ tokens/s", text)
    if not torch.cuda.is_available():
        assert "no MFU without a GPU's peak" in text and "% useful MFU" not in text


@pytest.mark.prove
@pytest.mark.timeout(1200)
def test_the_rehearsal_tries_qlora_where_bitsandbytes_is(tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    text = rehearsed(tmp_path / "result.md", "qlora")
    assert "| qlora | passed |" in text and "qlora: 3 steps on one batch, loss" in text


def test_without_bitsandbytes_qlora_is_called_not_verified(check: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else genuine(name, *rest)
    )
    (section,) = (section for section in check.SECTIONS if section.name == "qlora")
    outcome = check.tried(section, True)
    assert (outcome.state, outcome.text) == ("not verified", "QLoRA not verified: bitsandbytes is not here")
