from __future__ import annotations

import json
import os
import socket
import sqlite3
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from chaku import packages
from chaku.cli.doctor import doctor
from chaku.ports import free_port


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHAKU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CHAKU_DATA", str(tmp_path / "data"))
    for name in ("CHAKU_DATABASE", "HF_TOKEN", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def examined(*arguments: str, exit_code: int = 0) -> dict[str, dict[str, Any]]:
    result = CliRunner().invoke(doctor, ["--json", "--port", str(free_port()), *arguments])
    assert result.exit_code == exit_code, result.output
    return {check["about"]: check for check in json.loads(result.stdout)}


def test_a_healthy_machine_has_no_failures_and_nothing_is_made(home: Path) -> None:
    checks = examined()
    assert checks["python"]["level"] == "ok"
    loads = "loads; waiting threads sleep (--spin is faster on an idle machine)"
    assert checks["llama.cpp"] == {"level": "ok", "about": "llama.cpp", "finding": loads, "fix": None}
    assert "available" in checks["memory"]["finding"]
    assert checks["models"]["fix"] == "chaku pull smollm2-135m"
    assert "will be made" in checks["database"]["finding"]
    assert list(home.iterdir()) == []
    assert {f"[{extra}]" for extra in metadata.metadata("chaku").get_all("Provides-Extra")} <= checks.keys()


def test_who_holds_the_port_is_named() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        check = examined("--port", str(listener.getsockname()[1]))["port"]
    assert check["level"] == "warn"
    if Path("/proc/net/tcp").exists():
        assert f"process {os.getpid()} " in check["finding"]


def test_secrets_are_counted_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-hidden")
    monkeypatch.setenv("CHAKU_DATABASE", "postgresql+psycopg://me:hidden@127.0.0.1:9/chaku")
    result = CliRunner().invoke(doctor, [])
    assert "OPENAI_API_KEY is set" in result.output
    assert "HF_TOKEN is not set" in result.output
    assert "hidden" not in result.output


def test_a_database_that_can_t_be_reached_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAKU_DATABASE", "postgresql+psycopg://me@127.0.0.1:9/chaku")
    check = examined(exit_code=1)["database"]
    assert check["level"] == "FAIL"
    assert check["fix"] == "check CHAKU_DATABASE"


def test_the_version_of_a_database_is_read(home: Path) -> None:
    (home / "data").mkdir()
    with sqlite3.connect(home / "data" / "chaku.db") as connection:
        connection.execute("CREATE TABLE alembic_version (version_num TEXT)")
        connection.execute("INSERT INTO alembic_version VALUES ('0001')")
    connection.close()
    assert examined()["database"]["finding"].endswith("version 0001")


def test_a_file_that_is_no_database_fails(home: Path) -> None:
    (home / "data").mkdir()
    (home / "data" / "chaku.db").write_bytes(b"not a database" * 100)
    assert examined(exit_code=1)["database"]["level"] == "FAIL"


def test_a_database_that_can_be_read_and_not_written_fails_and_keeps_its_content(
    home: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAKU_DATABASE", f"sqlite:///{database}")
    before = database.read_bytes()
    assert "can be written, version " in examined()["database"]["finding"]
    assert database.read_bytes() == before
    monkeypatch.setenv("CHAKU_DATABASE", f"sqlite:///file:{database}?mode=ro&uri=true")
    check = examined(exit_code=1)["database"]
    assert (check["level"], check["fix"]) == ("FAIL", "check CHAKU_DATABASE")
    assert "readonly" in check["finding"]


@pytest.mark.parametrize(("variable", "about"), [("CHAKU_CACHE", "cache"), ("CHAKU_DATA", "database")])
def test_a_folder_that_can_t_be_written_fails(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, about: str
) -> None:
    (home / "file").touch()
    monkeypatch.setenv(variable, str(home / "file" / "below"))
    check = examined(exit_code=1)[about]
    assert (check["level"], check["fix"]) == ("FAIL", f"export {variable}=FOLDER")


def test_a_missing_extra_says_what_it_brings_and_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    real = packages.version
    monkeypatch.setattr(packages, "version", lambda name: None if name.startswith("huggingface") else real(name))
    check = examined()["[hub]"]
    assert (check["level"], check["finding"]) == ("warn", "huggingface-hub is missing: it pulls hf: models")
    assert check["fix"].startswith(packages.install_command("hub"))


def test_every_engine_is_listed_and_the_others_with_the_way_to_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    real = packages.version
    monkeypatch.setattr(packages, "version", lambda name: None if name == "xllamacpp" else real(name))
    checks = examined()
    assert checks["engine scripted"]["level"] == "ok"
    assert checks["engine llamacpp"]["level"] == "warn"
    assert checks["engine llamacpp"]["fix"] == packages.install_command("local")
