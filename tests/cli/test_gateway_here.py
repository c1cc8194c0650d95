"""`chaku ps`, `chaku stop` and `chaku doctor` know the gateway that runs on this machine."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from chaku.cli.doctor import doctor
from chaku.cli.gateway_here import ps, stop
from chaku.errors import UsageError
from chaku.ports import free_port
from chaku_server import ChakuServer, run_chaku, serving
from processes import PATIENCE_S

needs_proc = pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="no /proc here")


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChakuServer]:
    with serving(tmp_path_factory.mktemp("gateway"), "one=scripted:", "two=scripted:", "--no-ui") as server:
        yield server


def port_of(server: ChakuServer) -> str:
    return server.url.rpartition(":")[2]


@pytest.fixture
def nobodys_port() -> str:
    return str(free_port())


def test_ps_shows_every_model_with_its_state(gateway: ChakuServer) -> None:
    shown = CliRunner().invoke(ps, ["--port", port_of(gateway)]).stdout
    head, columns, one, two = shown.splitlines()
    assert head.startswith(f"{gateway.url}  chaku ")
    assert columns.split() == ["MODEL", "STATE", "CONTEXT", "SLOTS", "RUNNING", "WAITING"]
    assert (one.split()[:2], two.split()[:2]) == (["one", "ready"], ["two", "ready"])


@needs_proc
def test_ps_as_json_names_the_process(gateway: ChakuServer) -> None:
    told = json.loads(CliRunner().invoke(ps, ["--port", port_of(gateway), "--json"]).stdout)
    assert (told["url"], told["pid"]) == (gateway.url, gateway.process.pid)
    assert [(row["name"], row["state"], row["running"]) for row in told["models"]] == [
        ("one", "ready", 0),
        ("two", "ready", 0),
    ]


def test_ps_where_nothing_is_served_says_how_to_serve(nobodys_port: str) -> None:
    done = CliRunner().invoke(ps, ["--port", nobodys_port])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "chaku serve MODEL" in done.stderr
    assert json.loads(CliRunner().invoke(ps, ["--port", nobodys_port, "--json"]).stdout)["models"] == []


def test_ps_without_the_key_shows_states_alone(tmp_path: Path) -> None:
    with serving(tmp_path, "scripted:", "--no-ui") as server:
        token = json.loads(run_chaku(tmp_path, "keys", "create", "me", "--json").stdout)["token"]
        deadline = time.monotonic() + PATIENCE_S
        while True:  # the gateway knows of a new key within about a second
            row = json.loads(CliRunner().invoke(ps, ["--port", port_of(server), "--json"]).stdout)["models"][0]
            if row["slots"] is None or time.monotonic() > deadline:
                break
            time.sleep(0.05)
        assert (row["state"], row["slots"]) == ("ready", None)
        done = run_chaku(tmp_path, "ps", "--port", port_of(server), "--json", OPENAI_API_KEY=token)
        assert json.loads(done.stdout)["models"][0]["slots"] is not None


def test_doctor_says_that_chaku_itself_holds_the_port(gateway: ChakuServer) -> None:
    told = json.loads(CliRunner().invoke(doctor, ["--port", port_of(gateway), "--json"]).stdout)
    (check,) = (check for check in told if check["about"] == "port")
    assert (check["level"], check["fix"]) == ("ok", None)
    assert "held by chaku" in check["finding"] and "which serves one, two" in check["finding"]


@needs_proc
def test_stop_ends_the_gateway_in_order(tmp_path: Path) -> None:
    with serving(tmp_path, "scripted:", "--no-ui") as server:
        done = run_chaku(tmp_path, "stop", "--port", port_of(server))
        assert (done.returncode, server.process.wait(PATIENCE_S)) == (0, 0), done.stderr
        assert f"process {server.process.pid}" in done.stdout


def test_stop_leaves_what_is_not_chaku_alone() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(0)
        done = CliRunner().invoke(stop, ["--port", str(listener.getsockname()[1])])
    assert isinstance(done.exception, UsageError)
    assert "no chaku answers" in str(done.exception)
