"""The built wheel works alone: installed into an empty environment, run from another folder, and light."""

from __future__ import annotations

import functools
import re
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from openai import OpenAI

from chaku_server import MODEL, ChakuServer
from empty_environment import EmptyEnvironment, alone, build_wheel
from processes import PATIENCE_S

pytestmark = [pytest.mark.wheel, pytest.mark.model, pytest.mark.timeout(600)]

FRANCE = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]
BASE_BUDGET_MB, LOCAL_BUDGET_MB = 220, 330
"""design: the base install, and with llama.cpp, on Linux x86-64, without pip and setuptools."""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[EmptyEnvironment, float]:
    """An environment with chaku alone, and its weight in MB. `installed` adds llama.cpp to it."""
    environment = EmptyEnvironment.make(tmp_path_factory.mktemp("alone") / "venv")
    environment.install(str(wheel))
    return environment, weight_mb(environment.folder)


@pytest.fixture(scope="module")
def installed(bare: tuple[EmptyEnvironment, float], wheel: Path) -> EmptyEnvironment:
    """The same environment with chaku[local]."""
    bare[0].install(f"{wheel}[local]")
    return bare[0]


def weight_mb(environment: Path) -> float:
    """Disk space of the installed packages and what Python compiled of them, without pip and setuptools."""
    (packages,) = environment.glob("lib/python*/site-packages")
    files = (file for file in packages.rglob("*") if file.is_file())
    return (
        sum(
            file.stat().st_size
            for file in files
            if not file.relative_to(packages).parts[0].startswith(("pip", "setuptools", "_distutils", "pkg_resources"))
        )
        / 1e6
    )


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"chaku"}
    assert "chaku/py.typed" in names
    assert any(name.startswith("chaku/store/migrations/") for name in names)
    assert not any("test" in name or name.endswith((".gguf", ".db")) for name in names)


def test_without_any_extra_it_says_its_version_and_its_help_and_estimates(
    bare: tuple[EmptyEnvironment, float], tmp_path: Path
) -> None:
    chaku = functools.partial(bare[0].chaku, tmp_path)
    done = chaku("--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "chaku")
    for command in ("serve", "demo", "chat", "pull", "models", "doctor", "keys"):
        done = chaku(command, "--help")
        assert done.returncode == 0, done.stderr
    done = chaku("estimate", "vicuna-7b-v1.5", "--tokens", "350M")
    assert done.returncode == 0, done.stderr
    for needs in (["data", "build", "x.json", "-o", "set"], ["train", "x.yaml"], ["serve", MODEL]):
        done = chaku(*needs)
        assert done.returncode == 2, done.stderr
        assert "not installed" in done.stderr and "  fix: " in done.stderr and "Traceback" not in done.stderr


def test_the_demo_answers_and_ends(installed: EmptyEnvironment, tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    command = [installed.program, "demo", "--no-open", "--port", "0"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, env=alone(tmp_path), cwd=tmp_path, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        deadline = time.monotonic() + PATIENCE_S
        while (found := re.search(r"chaku is at (http://\S+)", log.read_text())) is None:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        server = ChakuServer(found[1], process, log)
        server.wait_until_ready()
        with OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as client:
            answer = client.chat.completions.create(model=MODEL, messages=FRANCE, temperature=0)
        assert "Paris" in (answer.choices[0].message.content or "")
        engines = server.engines()
        assert server.end(signal.SIGINT) == 0
        assert not psutil.wait_procs(engines, timeout=PATIENCE_S)[1]
    finally:
        process.kill()
        process.wait()


def test_the_install_is_light(
    bare: tuple[EmptyEnvironment, float], installed: EmptyEnvironment, record_property: Callable[[str, object], None]
) -> None:
    base_mb, local_mb = bare[1], weight_mb(installed.folder)
    record_property("installed", f"base {base_mb:.0f} MB, with [local] {local_mb:.0f} MB")
    assert base_mb <= BASE_BUDGET_MB
    assert local_mb <= LOCAL_BUDGET_MB
