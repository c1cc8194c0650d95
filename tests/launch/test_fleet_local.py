"""`chaku up` on this machine, as a person runs it: a gateway and workers as processes, until `chaku down`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner, Result

from chaku.cli.main import root
from chaku.errors import UsageError
from chaku.launch.fleet.record import Record
from chaku_server import chaku_environment
from processes import PATIENCE_S
from waiting import eventually


class Fleet:
    """A fleet that is up, with a folder of its own."""

    def __init__(self, home: Path, **settings: Any) -> None:
        self.home = home
        self.env = chaku_environment(home)
        self.file = home / "fleet.yaml"
        self.file.write_text(yaml.safe_dump(settings))
        self.record = Record(Path(self.env["CHAKU_DATA"]) / "fleets" / settings["name"])

    def start(self, *more: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "chaku", "up", str(self.file), "--detach", *more]
        return subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=3 * PATIENCE_S)

    def chaku(self, *words: str) -> Result:
        """Run another command, in this process: it is about this fleet as a new one would be."""
        return CliRunner().invoke(root, words, env=self.env)

    @property
    def workers(self) -> dict[str, dict[str, Any]]:
        rows: dict[str, dict[str, Any]] = self.record.state()["workers"]
        return rows

    def pid(self, name: str) -> int:
        state = self.record.state()
        text: str = state["gateway"] if name == "gateway" else state["workers"][name]["place"]
        return int(text.removeprefix("process "))

    def states(self) -> dict[str, str]:
        return {name: row["state"] for name, row in self.workers.items()}

    def said(self) -> str | None:
        body = json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).encode()
        url = self.record.state()["url"] + "/v1/chat/completions"
        request = urllib.request.Request(url, body, {"content-type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
                text: str = json.load(response)["choices"][0]["message"]["content"]
        except (urllib.error.URLError, ConnectionError):
            return None
        return text

    def log(self) -> str:
        return "\n".join(f"{file.name}: {file.read_text()}" for file in sorted(self.record.logs.glob("*.log")))

    def end(self) -> None:
        """Whatever is left, by process id; the children end with their parent."""
        pid = self.record.state().get("pid")
        if self.record.is_held() and pid is not None:
            os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    pools = [{"source": "m=scripted:"}, {"source": "bad=scripted:/nowhere.yaml"}]
    fleet = Fleet(tmp_path_factory.mktemp("up"), name="house", gateway={"port": 0, "ui": False}, workers=pools)
    try:
        up = fleet.start()
        assert up.returncode == 1, up.stderr + fleet.log()
        assert "house-bad-1 can't run; the others serve" in up.stderr
        assert "house-bad-1 ended with code 2, and another start would end the same way" in up.stderr
        assert "/nowhere.yaml" in up.stderr
        yield fleet
    finally:
        fleet.end()


def alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_what_is_killed_comes_back_and_down_leaves_nothing(fleet: Fleet) -> None:
    settled = {"house-m-1": "ready", "house-bad-1": "failed"}
    assert fleet.states() == settled
    assert fleet.said() is not None
    again = fleet.chaku("up", str(fleet.file))
    assert "is up already" in str(again.exception)

    url, worker, gateway = fleet.record.state()["url"], fleet.pid("house-m-1"), fleet.pid("gateway")
    os.kill(worker, signal.SIGKILL)
    os.kill(gateway, signal.SIGKILL)
    eventually(lambda: fleet.pid("gateway") != gateway and fleet.said() is not None, why=fleet.log)
    eventually(lambda: fleet.states() == settled and fleet.workers["house-m-1"]["restarts"] == 1, why=fleet.log)
    assert fleet.pid("house-m-1") != worker
    assert fleet.record.state()["url"] == url

    assert fleet.chaku("fleet", "scale", "bad", "0").exit_code == 0
    eventually(lambda: fleet.states() == {"house-m-1": "ready"}, why=fleet.log)
    unknown = fleet.chaku("fleet", "scale", "n", "1")
    assert "models of house: m, bad" in str(unknown.exception)

    pids = [fleet.record.state()["pid"], fleet.pid("house-m-1"), fleet.pid("gateway")]
    ended = fleet.chaku("down")
    assert ended.exit_code == 0 and "fleet house is down" in ended.stdout, ended.output
    eventually(lambda: not any(alive(pid) for pid in pids))
    assert "no fleet is up" in str(fleet.chaku("down").exception)
    keys = fleet.chaku("keys", "list", "--json")
    assert all(key["revoked_at"] for key in json.loads(keys.stdout)["keys"]), "the token with which its workers joined"


@pytest.mark.parametrize(("words", "way_out"), [([], "`chaku up fleet.yaml` starts one"), (["nowhere"], "up: none")])
def test_down_says_what_is_up(words: list[str], way_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAKU_DATA", str(tmp_path))
    with pytest.raises(UsageError) as caught:
        CliRunner().invoke(root, ["down", *words], catch_exceptions=False)
    assert caught.value.fix == way_out
