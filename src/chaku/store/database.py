"""Opens the database: SQLite in WAL mode or PostgreSQL, brought to this version's tables before anyone uses it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import event, exc

import chaku
from chaku.errors import StoreError
from chaku.packages import install_command
from chaku.store.tables import metadata

log = logging.getLogger(__name__)

HEAD = "0011"
"""The newest migration. Written here so that opening an up-to-date database need not load Alembic (0.1 s)."""

BUSY_TIMEOUT_S = 15.0
"""A writer waits for so long until another process ends its transaction or migration."""

_MIGRATION_LOCK = 0x636861_6B75  # "chaku": PostgreSQL's advisory lock held while migrating
_DOWN = (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError)


class Store:
    """An open database. Thread-safe; one per process, never shared across a fork.

    A committed transaction outlives a killed process. SQLite runs with synchronous=NORMAL: a power cut may take the
    last commits with it, never the database. `write(durable=True)` outlives a power cut too.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine
        self._writing = engine.execution_options(chaku_writes=True)
        self._writing_durably = engine.execution_options(chaku_writes=True, chaku_durable=True)

    @property
    def name(self) -> str:
        """The database's URL without its password."""
        return without_password(self.engine.url.render_as_string(hide_password=False))

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A transaction that only reads. Raises StoreError when the database is away or locked."""
        with self._translated(), self.engine.begin() as connection:
            yield connection

    @contextlib.contextmanager
    def write(self, *, durable: bool = False) -> Iterator[sa.Connection]:
        """A transaction that may write: committed when the block ends well. In SQLite the only one of its time.

        A `durable` one is on the disk when the block has ended.
        """
        engine = self._writing_durably if durable else self._writing
        with self._translated(), engine.begin() as connection:
            if durable and connection.dialect.name == "postgresql":
                connection.exec_driver_sql("SET LOCAL synchronous_commit = on")
            yield connection

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except _DOWN as error:
            raise _explain(error, self.name) from error

    def now(self, connection: sa.Connection) -> datetime:
        """The time by the database's own clock."""
        if self.engine.dialect.name == "sqlite":
            text = connection.exec_driver_sql("SELECT strftime('%Y-%m-%dT%H:%M:%f+00:00', 'now')").scalar_one()
            return datetime.fromisoformat(text)
        moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
        return moment.astimezone(UTC)

    def close(self) -> None:
        """Close every connection; safe to call twice."""
        self.engine.dispose()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_store(url: str) -> Store:
    """Open the database at an SQLAlchemy URL, make or upgrade its tables, and return it ready.

    `sqlite:///path` (`~` is expanded, folders and the file are made, mode 0600) or `postgresql://user@host/name`.
    Two processes may open the same new database at once. Raises StoreError: not reachable, not a chaku database, or
    made by a newer chaku.
    """
    store = Store(_engine(url))
    try:
        with store._translated():
            if store.engine.dialect.name == "sqlite":
                _use_wal(str(store.engine.url.database))
            _migrate(store)
    except (
        exc.DatabaseError,
        sqlite3.DatabaseError,
    ) as error:  # what is not covered by _translated: no database file, tables of someone else
        store.close()
        raise _explain(error, store.name) from error
    except BaseException:
        store.close()
        raise
    return store


def open_memory_store() -> Store:
    """A store in the memory of this process, for what must not be kept. Owners are those of another store.

    It has one connection, so that its transactions take turns: no transaction may be begun within another.
    """
    engine = sa.create_engine(
        "sqlite:///:memory:",
        poolclass=sa.pool.QueuePool,
        pool_size=1,
        max_overflow=0,
        pool_timeout=BUSY_TIMEOUT_S,
        connect_args={"check_same_thread": False},
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    tables = sa.MetaData()
    for table in metadata.tables.values():
        copy = table.to_metadata(tables)
        for constraint in copy.foreign_key_constraints:
            if constraint.elements[0].target_fullname.startswith("visitors."):
                copy.constraints.discard(constraint)
    store = Store(engine)
    with store.write() as connection:
        tables.create_all(connection)
    return store


def without_password(text: str) -> str:
    """A database's URL as it may be shown, wherever in it the password is."""
    try:
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError):
        return "not a URL"
    if "password" in url.query:
        url = url.update_query_dict({"password": "***"})
    return url.render_as_string(hide_password=True)


def _engine(text: str) -> sa.Engine:
    try:
        url = sa.make_url(text)
    except (exc.ArgumentError, ValueError):
        # The text is not repeated: it may hold a password.
        raise StoreError(
            "the database address is not a URL", fix="write it as sqlite:///path or postgresql://user@host/name"
        ) from None
    backend = url.drivername.split("+")[0]
    options: dict[str, Any] = {"json_serializer": partial(json.dumps, allow_nan=False, separators=(",", ":"))}
    if backend == "sqlite":
        url = url.set(drivername="sqlite", database=str(_make_file(url)))
        options["connect_args"] = {"timeout": BUSY_TIMEOUT_S}
    elif backend in ("postgresql", "postgres"):
        url = url.set(drivername="postgresql+psycopg")
        options["connect_args"] = {"connect_timeout": 10, "options": _utc_sessions(url)}
        options["pool_pre_ping"] = True
    else:
        raise StoreError(f"can't keep data in {backend!r}", fix="use sqlite:///path or postgresql://user@host/name")
    try:
        engine = sa.create_engine(url, **options)
    except ModuleNotFoundError as error:
        raise StoreError(
            f"the PostgreSQL driver {error.name} is not installed", fix=install_command("postgres")
        ) from None
    if backend == "sqlite":
        event.listen(engine, "connect", _set_up_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
    return engine


def _utc_sessions(url: sa.URL) -> str:
    """Sessions count days in UTC, on top of whatever options the URL asks for."""
    given = url.query.get("options", "")
    return " ".join([*([given] if isinstance(given, str) else given), "-c timezone=UTC"]).strip()


def _make_file(url: sa.URL) -> Path:
    if not url.database or url.database == ":memory:" or url.database.startswith("file:"):
        raise StoreError("the SQLite database needs a file of its own", fix="write sqlite:///path/to/chaku.db")
    path = Path(url.database).expanduser()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise StoreError(
            f"can't open the database {path}: {error.strerror}", fix="check the path, or choose one with --database"
        ) from None
    return path


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    connection.isolation_level = None  # BEGIN is ours (_begin_sqlite); sqlite3 would begin too late for read-then-write
    connection.execute("PRAGMA foreign_keys = ON")
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin_sqlite(connection: sa.Connection) -> None:
    options = connection.get_execution_options()
    writes = options.get("chaku_writes", False)
    synchronous = "FULL" if options.get("chaku_durable", False) else "NORMAL"
    if writes and connection.info.get("synchronous", "NORMAL") != synchronous:  # can't be set inside a transaction
        connection.exec_driver_sql(f"PRAGMA synchronous = {synchronous}")
        connection.info["synchronous"] = synchronous
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_wal(path: str) -> None:
    """Switch the file to WAL, which it then stays in. SQLite refuses at once while another process is at it: repeat."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    with contextlib.closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT_S)) as connection:
        while True:
            try:
                mode: str = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
                break
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
    if mode != "wal":
        log.warning("SQLite can't use WAL at %s (mode %s): readers will wait for writers", path, mode)


def _migrate(store: Store) -> None:
    with store.read() as connection:
        if _version(connection) == HEAD:
            return
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with store.write() as connection:  # one transaction: all of it or nothing, and others wait here
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        version = _version(connection)
        if version == HEAD:
            return
        if version is not None and version not in known:
            raise StoreError(
                f"{store.name} has version {version}, chaku {chaku.__version__} knows versions up to {HEAD}",
                fix="upgrade chaku, or choose another database with --database",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    log.info("database %s is now at version %s (was %s)", store.name, HEAD, version or "empty")


def _version(connection: sa.Connection) -> str | None:
    """The migration a database is at; None before the first one."""
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
    return version


def _explain(error: Exception, name: str) -> StoreError:
    cause = str(getattr(error, "orig", None) or error).strip().splitlines()[0]
    if "locked" in cause:
        return StoreError(
            f"{name} was locked by another process for {BUSY_TIMEOUT_S:g} s", fix="end that process, or try again"
        )
    if "already exists" in cause:
        return StoreError(f"{name} holds tables of another program ({cause})", fix="give chaku a database of its own")
    if "disk" in cause:  # SQLite's "database or disk is full" and "disk I/O error", as it is called where no log fits
        return StoreError(f"the disk of {name} is full or fails: {cause}", fix="free some space there, then try again")
    return StoreError(f"the database {name} failed: {cause}", fix="check that it is reachable and is chaku's")
