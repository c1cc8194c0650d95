"""The built wheel works alone: installed into an empty environment, run from another folder, and light."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from openai import OpenAI

from chaku_server import MODEL, ChakuServer, chaku_environment
from processes import PATIENCE_S

pytestmark = [pytest.mark.wheel, pytest.mark.model, pytest.mark.timeout(600)]

FRANCE = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]
ROOT = Path(__file__).parents[2]
BASE_BUDGET_MB, LOCAL_BUDGET_MB = 220, 330
"""design: the base install, and with llama.cpp, on Linux x86-64, without pip and setuptools."""

OFFLINE = ("No matching distribution found", "NewConnectionError", "NameResolutionError")


def pip(python: Path | str, *arguments: str) -> None:
    constraints = ROOT / "constraints.txt"
    held = ("--constraint", str(constraints)) if constraints.exists() and arguments[0] == "install" else ()
    command = [str(python), "-m", "pip", *arguments, "--quiet", "--disable-pip-version-check", *held]
    done = subprocess.run(command, capture_output=True, text=True)
    if "CI" not in os.environ and any(sign in done.stderr for sign in OFFLINE):
        pytest.skip("no package index is in reach")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    pip(sys.executable, "wheel", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (found,) = folder.glob("chaku-*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, float]]]:
    """An environment with chaku[local] and nothing else; its Python, and what each step weighs in MB."""
    folder = tmp_path_factory.mktemp("alone") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = folder / "bin" / "python"
    weights = {}
    pip(python, "install", str(wheel))
    weights["base"] = weight_mb(folder)
    pip(python, "install", f"{wheel}[local]")
    weights["local"] = weight_mb(folder)
    yield python, weights


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


def alone(home: Path) -> dict[str, str]:
    """The environment of somebody who has no checkout."""
    return {key: value for key, value in chaku_environment(home).items() if key != "PYTHONPATH"}


def run(python: Path, home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(python.parent / "chaku"), *arguments]
    return subprocess.run(command, env=alone(home), cwd=home, capture_output=True, text=True, timeout=PATIENCE_S)


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"chaku"}
    assert "chaku/py.typed" in names
    assert any(name.startswith("chaku/store/migrations/") for name in names)
    assert not any("test" in name or name.endswith((".gguf", ".db")) for name in names)


def test_it_says_its_version_and_its_help_from_another_folder(
    installed: tuple[Path, dict[str, float]], tmp_path: Path
) -> None:
    done = run(installed[0], tmp_path, "--version")
    assert (done.returncode, done.stdout.split()[0]) == (0, "chaku")
    for command in ("serve", "demo", "chat", "pull", "models", "doctor", "keys"):
        done = run(installed[0], tmp_path, command, "--help")
        assert done.returncode == 0, done.stderr


def test_the_demo_answers_and_ends(installed: tuple[Path, dict[str, float]], tmp_path: Path) -> None:
    log = tmp_path / "demo.log"
    command = [str(installed[0].parent / "chaku"), "demo", "--no-open", "--port", "0"]
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


def test_the_install_is_light(installed: tuple[Path, dict[str, float]]) -> None:
    weights = installed[1]
    print(f"installed: base {weights['base']:.0f} MB, with [local] {weights['local']:.0f} MB")
    assert weights["base"] <= BASE_BUDGET_MB
    assert weights["local"] <= LOCAL_BUDGET_MB
