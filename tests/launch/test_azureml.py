"""deploy/azureml: azure-ai-ml's loaders read it, nginx stands in front of chaku, the batch script answers files."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import psutil
import pytest
import yaml

from chaku.serve.endpoints import ENDPOINTS
from chaku_server import chaku_environment
from empty_environment import EmptyEnvironment
from processes import PATIENCE_S

DEPLOY = Path(__file__).parents[2] / "deploy/azureml"
AZURE_ML = "azure-ai-ml==1.35.2"
LOAD = """
import json, sys, azure.ai.ml as ml
def load(kind): return getattr(ml, f"load_{kind}")(f"{sys.argv[1]}/{kind.replace('_', '-')}.yml")
kinds = ("online_endpoint", "online_deployment", "batch_endpoint", "batch_deployment")
print(json.dumps({kind: [type(load(kind)).__name__, load(kind)._to_dict()] for kind in kinds}, default=str))
"""


def program(folder: Path) -> Path:
    """A `chaku` that runs this checkout."""
    path = folder / "chaku"
    path.write_text(f'#!/bin/sh\nexec {sys.executable} -m chaku "$@"\n')
    path.chmod(0o755)
    return path


def free_ports(num: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(num)]
    ports: list[int] = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_routes_and_port_of_the_environment_are_those_of_the_front() -> None:
    deployment = yaml.safe_load((DEPLOY / "online-deployment.yml").read_text())
    routes = deployment["environment"]["inference_config"]
    start = (DEPLOY / "environment/start.sh").read_text()
    assert {route["port"] for route in routes.values()} == {int(re.findall(r"PORT:-(\d+)", start)[0])}
    [allowed] = re.findall(r"location ~ (\S+) ", (DEPLOY / "environment/nginx.conf.template").read_text())
    served = {endpoint.path for endpoint in ENDPOINTS}
    for route in routes.values():
        assert re.match(allowed, route["path"]) and route["path"] in served
    assert not any(re.match(allowed, path) for path in served if path.startswith("/fleet") or path == "/metrics")


@pytest.fixture
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The batch script, before a model with canned replies."""
    for name, value in chaku_environment(tmp_path / "home").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("CHAKU_PROGRAM", str(program(tmp_path)))
    monkeypatch.setenv("CHAKU_MODEL", "scripted:")
    monkeypatch.setenv("CHAKU_PORT", str(free_ports(1)[0]))
    specification = importlib.util.spec_from_file_location("azureml_score", DEPLOY / "batch/score.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    before = psutil.Process().children(recursive=True)
    try:
        yield module
    finally:
        started = [one for one in psutil.Process().children(recursive=True) if one not in before]
        for process in started:
            process.terminate()
        psutil.wait_procs(started, timeout=PATIENCE_S)


def test_the_batch_script_gives_a_line_for_each_request_of_each_file(script: ModuleType, tmp_path: Path) -> None:
    files = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    files[0].write_text('{"prompt": "one"}\n{"prompt": "two"}\n')
    files[1].write_text('{"prompt": "three"}\n')
    script.init()
    answers = [json.loads(line) for line in script.run([str(file) for file in files])]
    said = [answer["response"]["body"]["choices"][0]["message"]["content"] for answer in answers]
    assert sorted(said) == ["You said: one", "You said: three", "You said: two"]


@pytest.mark.prove
@pytest.mark.skipif(not (shutil.which("nginx") and shutil.which("envsubst")), reason="needs nginx and gettext-base")
def test_the_online_front_swaps_the_key_and_shows_only_the_api(tmp_path: Path) -> None:
    port, inner = free_ports(2)
    variables = chaku_environment(
        tmp_path, PORT=str(port), CHAKU_PORT=str(inner), CHAKU_MODEL="scripted:",
        PATH=f"{program(tmp_path).parent}{os.pathsep}{os.environ['PATH']}",
    )  # fmt: skip
    started = subprocess.Popen(["sh", str(DEPLOY / "environment/start.sh")], env=variables)
    try:
        body = json.dumps({"input_data": {"input_string": ["Once"], "parameters": {"max_new_tokens": 9}}}).encode()
        deadline = time.monotonic() + 2 * PATIENCE_S
        while ask(f"http://127.0.0.1:{port}/health")[0] != 200:
            assert time.monotonic() < deadline and started.poll() is None
            time.sleep(0.2)
        assert ask(f"http://127.0.0.1:{port}/score", body) == (200, [{"0": "OnceYou said: Once"}])
        assert ask(f"http://127.0.0.1:{inner}/score", body, host="127.0.0.1")[0] == 401
        assert {path: ask(f"http://127.0.0.1:{port}{path}")[0] for path in ("/", "/metrics", "/health/x")} == {
            "/": 404, "/metrics": 404, "/health/x": 404,
        }  # fmt: skip
    finally:
        started.terminate()
        started.wait(PATIENCE_S)
        if (pid := tmp_path / "nginx.pid").exists():
            os.kill(int(pid.read_text()), signal.SIGTERM)


def ask(url: str, body: bytes | None = None, host: str = "chaku.example.net") -> tuple[int, Any]:
    """Status and JSON body, as the platform asks: with a key that chaku does not know. 0: nobody there."""
    headers = {"authorization": "Bearer of-the-endpoint", "host": host}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=PATIENCE_S) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, None
    except OSError:
        return 0, None


@pytest.mark.prove
@pytest.mark.wheel
def test_azure_mls_own_loaders_read_every_file(tmp_path: Path) -> None:
    """In an environment of their own, without a subscription; a planted mistake is refused."""
    azure = EmptyEnvironment.make(tmp_path / "venv")
    azure.install(AZURE_ML, constrained=False)
    folder = Path(shutil.copytree(DEPLOY, tmp_path / "deploy"))
    (folder / "model").mkdir()
    load = [str(azure.python), "-W", "ignore", "-c", LOAD, str(folder)]
    done = subprocess.run(load, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert {kind: name for kind, (name, _) in found.items()} == {
        "online_endpoint": "ManagedOnlineEndpoint", "online_deployment": "ManagedOnlineDeployment",
        "batch_endpoint": "BatchEndpoint", "batch_deployment": "BatchDeployment",
    }  # fmt: skip
    for notebook in ("online", "batch"):
        cells = json.loads((DEPLOY.parents[1] / f"notebooks/azure_{notebook}_endpoint.ipynb").read_text())["cells"]
        [cell] = ["".join(cell["source"]) for cell in cells if "azure" in cell["metadata"].get("tags", ())]
        built = subprocess.run([*load[:3], "-c", f"DEPLOY = {str(folder)!r}\n{cell}"], capture_output=True, text=True)
        assert built.returncode == 0 and built.stdout.endswith(
            {"online": "chaku default Standard_F8s_v2\n", "batch": "chaku-batch default cpu-cluster\n"}[notebook]
        ), built.stdout + built.stderr
    routes = found["online_deployment"][1]["environment"]["inference_config"]
    assert routes["scoring_route"] == {"port": 5001, "path": "/score"}
    deployment = folder / "online-deployment.yml"
    deployment.write_text(deployment.read_text().replace("liveness_probe:", "livenes_probe:"))
    done = subprocess.run(load, capture_output=True, text=True)
    assert done.returncode != 0 and "livenes_probe" in done.stderr
