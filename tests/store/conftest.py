from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from chaku.store.database import Store, open_store

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="session")
def postgres() -> Iterator:
    pytest.importorskip("psycopg", reason="psycopg is not installed (pip install 'chaku[postgres]')")
    from postgres import PostgresCluster, find_binaries

    if (binaries := find_binaries()) is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    cluster = PostgresCluster(binaries)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def postgres_template(postgres) -> str:
    """The name of a PostgreSQL database with tables: a copy costs less than the migrations do."""
    url = postgres.new_database()
    store = open_store(url)
    store.close()
    return store.engine.url.database


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """Of no file yet."""
    return f"sqlite:///{tmp_path / 'chaku.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest) -> str:
    """Of a database without tables, of each kind in turn."""
    if request.param == "sqlite":
        return request.getfixturevalue("sqlite_url")
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """Of a database with tables and nothing in them, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{request.getfixturevalue('database')}"
    template = request.getfixturevalue("postgres_template")
    return request.getfixturevalue("postgres").new_database(template)


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    with open_store(url) as opened:
        yield opened


@pytest.fixture
def now() -> datetime:
    return NOW
