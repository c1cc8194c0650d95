"""scripts/gpu-check, rehearsed at toy size: what its first hour on a GPU rests on."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import time
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

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


@pytest.mark.prove
@pytest.mark.timeout(1200)
def test_the_rehearsal_trains_and_writes_its_report(tmp_path: Path) -> None:
    out = tmp_path / "result.md"
    sections = ("gpu tests", "methods", "two ranks")
    words = [word for name in sections for word in ("--only", name)]
    done = subprocess.run(
        [sys.executable, SCRIPT, "--toy", "--out", out, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + out.read_text()
    text = out.read_text()
    assert "| methods | passed |" in text and "lora: 10 steps on one batch, loss" in text
    assert "| two ranks | not verified |" in text or "nccl" not in text
