import shutil
from pathlib import Path

import pytest

from chaku.store.database import open_store


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, and nothing in them: a copy costs less than the migrations do."""
    path = tmp_path_factory.mktemp("database") / "chaku.db"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(empty_database, tmp_path / "chaku.db"))
