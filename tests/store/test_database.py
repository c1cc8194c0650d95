import functools
import logging
import signal
import sqlite3
import stat
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

import chaku
from chaku.errors import StoreError
from chaku.store import migrations
from chaku.store.database import HEAD, open_store
from chaku.store.tables import metadata
from processes import run_python


def test_an_empty_database_gets_every_table_and_opening_it_again_changes_nothing(empty_url):
    with open_store(empty_url) as store:
        first = sorted(sa.inspect(store.engine).get_table_names())
    with open_store(empty_url) as store:
        assert sorted(sa.inspect(store.engine).get_table_names()) == first
    assert first == sorted([*metadata.tables, "alembic_version"])


def test_migrations_make_exactly_the_tables_that_the_code_uses(store):
    with store.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_a_missing_index_or_column_would_be_noticed(store):
    with store.write() as connection:
        connection.exec_driver_sql("DROP INDEX ix_usage_time")
        connection.exec_driver_sql("ALTER TABLE messages DROP COLUMN finish_reason")
    with store.read() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    assert sorted(difference[0] for difference in differences) == ["add_column", "add_index"]


def test_head_is_the_newest_shipped_migration():
    assert ScriptDirectory(str(Path(migrations.__file__).parent)).get_current_head() == HEAD


def test_migrations_can_be_taken_back(store):
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    with store.write() as connection:
        config.attributes["connection"] = connection
        command.downgrade(config, "base")
    assert sa.inspect(store.engine).get_table_names() == ["alembic_version"]


def test_processes_that_start_together_on_an_empty_database_all_get_it(empty_url, tmp_path):
    code = """
import sys
from chaku.store.database import open_store
open_store(sys.argv[2]).close()  # everything is imported: the race begins at the line below
print("ready", flush=True)
sys.stdin.readline()
open_store(sys.argv[1]).close()
"""
    started = [run_python(code, empty_url, f"sqlite:///{tmp_path / f'warm-up-{number}.db'}") for number in range(6)]
    for process in started:
        assert process.stdout.readline() == "ready\n"
    for process in started:
        process.stdin.write("\n")
        process.stdin.flush()
    for process in started:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    with open_store(empty_url) as store, store.read() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalars().all() == [HEAD]


def test_a_migration_killed_half_way_leaves_nothing_behind(empty_url):
    code = """
import os, signal, sys
from alembic import op
from chaku.store.database import open_store
create = op.create_table
def create_table(name, *rest, **options):
    if name == "messages":
        os.kill(os.getpid(), signal.SIGKILL)
    return create(name, *rest, **options)
op.create_table = create_table
open_store(sys.argv[1])
"""
    process = run_python(code, empty_url)
    process.communicate(timeout=60)
    assert process.returncode == -signal.SIGKILL
    with open_store(empty_url) as store:
        assert set(metadata.tables) <= set(sa.inspect(store.engine).get_table_names())


def test_a_database_of_a_newer_chaku_is_refused_with_both_versions_and_left_alone(empty_url):
    with open_store(empty_url) as store, store.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0999'")
    with pytest.raises(
        StoreError, match=f"version 0999, chaku {chaku.__version__} knows versions up to {HEAD}"
    ) as caught:
        open_store(empty_url)
    assert "upgrade chaku" in caught.value.fix
    engine = sa.create_engine(empty_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == "0999"
    engine.dispose()


def test_a_database_with_tables_of_another_program_is_refused(empty_url):
    engine = sa.create_engine(empty_url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE messages (subject TEXT)")
    engine.dispose()
    with pytest.raises(StoreError, match="tables of another program"):
        open_store(empty_url)


def test_sqlite_runs_in_wal_mode_with_foreign_keys(sqlite_url):
    with open_store(sqlite_url) as store, store.read() as connection:
        pragmas = ("journal_mode", "foreign_keys", "synchronous", "busy_timeout")
        values = {name: connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas}
    assert values == {"journal_mode": "wal", "foreign_keys": 1, "synchronous": 1, "busy_timeout": 15_000}


def test_the_sqlite_file_and_its_folders_are_made_and_no_one_else_can_read_it(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    with open_store("sqlite:///~/deep/er/chaku.db") as store, store.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = version_num")
        folder = tmp_path / "deep" / "er"
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"chaku.db": 0o600, "chaku.db-wal": 0o600, "chaku.db-shm": 0o600}


@pytest.mark.parametrize(
    ("address", "cause"),
    [
        ("my secret database", "not a URL"),
        ("mysql://root:secret@localhost/x", "can't keep data in 'mysql'"),
        ("sqlite://", "needs a file"),
        ("sqlite:///:memory:", "needs a file"),
        ("sqlite:////proc/nowhere/chaku.db", "can't open the database /proc/nowhere/chaku.db"),
        ("postgresql://someone:secret@127.0.0.1:1/x", "Connection refused"),
    ],
)
def test_an_address_that_leads_nowhere_is_explained_without_its_password(address, cause):
    with pytest.raises(StoreError) as caught:
        open_store(address)
    assert cause in str(caught.value)
    assert caught.value.fix
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("just some notes, long enough to not be taken for an empty database " * 20)
    before = path.read_bytes()
    with pytest.raises(StoreError, match="not a database"):
        open_store(f"sqlite:///{path}")
    assert path.read_bytes() == before


def test_a_writer_that_waits_too_long_is_told_so(sqlite_url, monkeypatch):
    monkeypatch.setattr("chaku.store.database.BUSY_TIMEOUT_S", 0.2)
    with open_store(sqlite_url) as one, open_store(sqlite_url) as two, one.write():
        with pytest.raises(StoreError, match=r"locked by another process for 0\.2 s"), two.write():
            pass
        with two.read() as connection:  # readers go on
            assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == HEAD


def test_a_full_disk_is_named_with_the_way_out(sqlite_url):
    with open_store(sqlite_url) as store:
        with pytest.raises(StoreError, match=r"disk of .* is full") as caught, store.write() as connection:
            connection.execute(sa.text("PRAGMA max_page_count = 1"))  # the pages there are, and no more
            connection.execute(sa.text("CREATE TABLE more AS SELECT randomblob(1000000)"))
        assert "free some space" in str(caught.value.fix)


def test_a_failed_block_leaves_no_trace(store):
    with pytest.raises(ZeroDivisionError), store.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'gone'")
        _ = 1 / 0
    with store.read() as connection:
        assert connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar() == HEAD


def test_an_upgrade_is_logged_without_the_password(sqlite_url, caplog):
    with caplog.at_level(logging.INFO, "chaku.store.database"):
        open_store(sqlite_url).close()
        open_store(sqlite_url).close()
    assert [record.message for record in caplog.records] == [
        f"database {sqlite_url} is now at version {HEAD} (was empty)"
    ]


def test_opening_an_up_to_date_database_does_not_load_alembic(sqlite_url):
    open_store(sqlite_url).close()
    code = """
import sys
from chaku.store.database import open_store
open_store(sys.argv[1])
print("alembic" in sys.modules)
"""
    output, errors = run_python(code, sqlite_url).communicate(timeout=60)
    assert output == "False\n", errors


def test_a_switch_to_wal_that_sqlite_refuses_at_once_is_repeated(sqlite_url, monkeypatch):
    # Of 1,200 real ones, four at a time on a new file, 23 were answered so (SQLite 3.40), whatever the timeout.
    refusals = iter([sqlite3.OperationalError("database is locked")] * 3)

    class Refusing(sqlite3.Connection):
        def execute(self, statement, *rest):
            if "journal_mode" in statement and (error := next(refusals, None)):
                raise error
            return super().execute(statement, *rest)

    monkeypatch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Refusing))
    with open_store(sqlite_url) as store, store.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    assert next(refusals, None) is None


def test_chats_and_usage_of_keys_survive_the_move_to_visitors(store, now):
    from alembic import command
    from alembic.config import Config

    from chaku.store import keys
    from chaku.store.conversations import Conversations
    from chaku.store.sessions import Sessions

    key = keys.create(store, "ann", now=now).key
    chat = Conversations(store, key.id).create("Ann's", now=now)
    Conversations(store, key.id).tree(chat.id).append(None, "user", "hello", now=now)
    token = Sessions(store).open(key.id, now=now)
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    for move, to in ((command.downgrade, "0007"), (command.upgrade, "head")):
        with store.write() as connection:
            config.attributes["connection"] = connection
            move(config, to)
    assert keys.list_keys(store) == [key]
    assert [m.content for m in Conversations(store, key.id).tree(chat.id).path()] == ["hello"]
    assert Sessions(store).find(token, now=now).key_id == key.id
    with pytest.raises(sa.exc.IntegrityError):
        Conversations(store, "nobody").create("x", now=now)
