"""What tests of several parts share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from chaku.store.database import open_store
from fake_openai import FakeServer


@pytest.fixture
def server():
    with FakeServer().running() as running:
        yield running


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real 135M model: CHAKU_TEST_MODEL, or the built-in one, pulled once into the user's cache."""
    if given := os.environ.get("CHAKU_TEST_MODEL"):
        return Path(given)
    from chaku.models.pull import pull
    from chaku.models.reference import parse

    return pull(parse("smollm2-135m").reference).path


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
