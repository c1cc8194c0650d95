"""What tests of several parts share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import smollm2
from chaku.store.database import open_store
from fake_openai import FakeServer

# Hypothesis would fail an example that took 200 ms, or was slow to make: on a busy machine any can.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

smollm2.gguf()  # before any test points the cache elsewhere


@pytest.fixture
def server():
    with FakeServer().running() as running:
        yield running


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real 135M model."""
    return smollm2.gguf()


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The real 135M model as a Hugging Face folder, dequantised by transformers. Don't write into it."""
    pytest.importorskip("transformers")
    return smollm2.folder()


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, and nothing in them: a copy costs less than the migrations do."""
    path = tmp_path_factory.mktemp("database") / "chaku.db"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    """A new SQLite database of the test's own."""
    return Path(shutil.copy(empty_database, tmp_path / "chaku.db"))
