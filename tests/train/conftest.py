from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

from train.small import write_base, write_set


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_base(tmp_path_factory.mktemp("base") / "llama")


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: pytest.TempPathFactory, base: Path) -> Path:
    return write_set(tmp_path_factory.mktemp("set") / "small", base)
