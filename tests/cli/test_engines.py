"""`chaku engines`: what is usable, and an environment that counts only when it is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from chaku.cli.main import root
from chaku.engines.servers import environments
from chaku.errors import UsageError

INTERPRETER = """#!/bin/sh
echo "$*" >> {log}
case "$*" in
  "-m venv"*) mkdir -p {folder}/bin && cp "$0" {folder}/bin/python ;;
  "-m pip"*) test ! -e {broken} ;;
esac
"""
"""Makes an environment as far as anybody looks; its pip fails while a file is there."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CHAKU_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("shutil.which", lambda name: None)
    return tmp_path / "cache"


def run(*words: str) -> Result:
    return CliRunner().invoke(root, ["engines", *words])


def listed() -> dict[str, dict[str, Any]]:
    return {row["engine"]: row for row in json.loads(run("list", "--json").stdout)}


def test_an_environment_counts_once_its_last_command_has_succeeded(tmp_path: Path, cache: Path) -> None:
    log, broken, python = tmp_path / "log", tmp_path / "broken", tmp_path / "python"
    python.write_text(INTERPRETER.format(log=log, folder=cache / "engines" / "vllm", broken=broken))
    python.chmod(0o755)
    broken.touch()
    failed = run("install", "vllm", "--python", str(python))
    assert isinstance(failed.exception, UsageError) and "pip install vllm==" in failed.exception.message
    assert not listed()["vllm"]["usable"]
    broken.unlink()
    assert run("install", "vllm", "--python", str(python)).exit_code == 0
    version = environments.PACKAGES["vllm"].version
    assert listed()["vllm"]["usable"] and listed()["vllm"]["version"] == version
    assert listed()["sglang"]["fix"].startswith("chaku engines install sglang")
    num_commands = len(log.read_text().splitlines())
    assert "is installed" in run("install", "vllm", "--python", str(python)).stdout
    assert len(log.read_text().splitlines()) == num_commands == 5
    assert "usable" in run("list").stdout


def test_a_dry_run_prints_the_commands_and_runs_none(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = run("install", "sglang", "--python", "python3.12", "--dry-run").stdout.splitlines()
    assert lines[0] == f"python3.12 -m venv --clear {cache / 'engines' / 'sglang'}"
    assert lines[1].endswith("-m pip install sglang==" + environments.PACKAGES["sglang"].version)
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/uv")
    assert run("install", "sglang", "--dry-run").stdout.startswith("/usr/bin/uv venv")
    assert not cache.exists()


def test_an_engine_without_an_environment_of_its_own_is_refused() -> None:
    assert "vllm, sglang" in str(getattr(run("install", "llamacpp").exception, "fix", None))
