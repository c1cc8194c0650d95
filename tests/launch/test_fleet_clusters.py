"""Fleets that Kubernetes and SkyPilot run: what is rendered, and what is handed to their tools."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner, Result

from chaku.cli.main import root
from chaku.errors import UsageError
from chaku.launch.fleet.sky import task
from chaku.launch.fleet.spec import read_fleet
from chaku.serve.worker.settings import WorkerConfig
from chaku.settings import ServeConfig
from launch.skypilot import skypilot
from processes import environment

__all__ = ["skypilot"]

KUBERNETES_VERSIONS = ("1.29", "1.34")
FLEET: dict[str, Any] = {
    "name": "house",
    "gateway": {"routing": "least_loaded"},
    "workers": [
        {"source": "smollm2-135m", "replicas": 2, "slots": 4, "cpus": 2, "memory_gb": 1.5},
        {"source": "hf:org/big", "name": "Big.Model", "gpus": 1, "gpu": "L4", "max_replicas": 3},
    ],
    "kubernetes": {"image": "registry.example/chaku:1", "secret": "keys", "node_selector": {"pool": "gpu"}},
    "sky": {"gateway": "https://chat.example", "infra": ["aws/us-east-1", "gcp"], "secrets": ["HF_TOKEN"]},
    "drain_s": 90,
}
TOOL = """#!/bin/sh
echo "$(basename "$0") $*" >> "$TOOL_LOG"
case "$*" in *"-f -"*) cat > "$TOOL_LOG.stdin";; esac
exit ${TOOL_CODE:-0}
"""


def written(folder: Path, **changes: Any) -> Path:
    file = folder / "fleet.yaml"
    file.write_text(yaml.safe_dump({**FLEET, **changes}))
    return file


def chaku(*words: str, **env: str) -> Result:
    return CliRunner().invoke(root, words, env=env, catch_exceptions=False)


def manifest(file: Path) -> list[dict[str, Any]]:
    shown = chaku("up", str(file), "--on", "k8s", "--dry-run")
    assert "fleet house, on k8s" in shown.stderr
    return [item for item in yaml.safe_load_all(shown.stdout) if item]


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_every_object_is_what_kubernetes_takes(version: str, tmp_path: Path) -> None:
    plain = {"kubernetes": {"cache_claim": "models"}, "workers": [{"source": "smollm2-135m"}]}
    for changes in ({}, plain):
        found = manifest(written(tmp_path, **changes))
        for item in found:
            kubernetes_validate.validate(item, version, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate({**found[-1], "spec": {"replica": 1}}, version, strict=True)


def test_workers_on_kubernetes_find_their_gateway_and_their_token_and_get_time_to_drain(tmp_path: Path) -> None:
    found = {(item["kind"], item["metadata"]["name"]): item for item in manifest(written(tmp_path))}
    assert set(found) == {
        ("ConfigMap", "house-gateway"), ("Service", "house-gateway"), ("Deployment", "house-gateway"),
        ("ConfigMap", "house-smollm2-135m"), ("Deployment", "house-smollm2-135m"),
        ("ConfigMap", "house-big-model"), ("Deployment", "house-big-model"),
    }  # fmt: skip
    gateway = ServeConfig.model_validate(yaml.safe_load(found["ConfigMap", "house-gateway"]["data"]["gateway.yaml"]))
    assert (gateway.host, gateway.port, gateway.routing) == ("0.0.0.0", 8000, "least_loaded")
    worker = WorkerConfig.model_validate(yaml.safe_load(found["ConfigMap", "house-big-model"]["data"]["worker.yaml"]))
    assert worker.join == ("http://house-gateway:8000",) and "house-gateway" in gateway.allowed_hosts
    assert (worker.model.source, worker.model.name) == ("hf:org/big", "Big.Model")

    service = found["Service", "house-gateway"]["spec"]
    for kind in ("house-gateway", "house-smollm2-135m", "house-big-model"):
        labels = found["Deployment", kind]["spec"]["template"]["metadata"]["labels"]
        reaches = service["selector"].items() <= labels.items()
        assert reaches == (kind == "house-gateway"), "the service leads to the gateway alone"
        container = found["Deployment", kind]["spec"]["template"]["spec"]["containers"][0]
        assert "httpGet" not in container["livenessProbe"], "/health is 503 while no worker is there"
    pod = found["Deployment", "house-big-model"]["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] > FLEET["drain_s"]
    assert pod["nodeSelector"] == {"pool": "gpu"}
    (container,) = pod["containers"]
    variables = {row["name"]: row for row in container["env"]}
    assert variables["CHAKU_JOIN_TOKEN"]["valueFrom"]["secretKeyRef"] == {"name": "keys", "key": "join-token"}
    assert container["args"] == ["--name", "$(POD_NAME)", "--advertise", "http://$(POD_IP):9001"]
    assert container["resources"] == {"limits": {"nvidia.com/gpu": 1}}
    small = found["Deployment", "house-smollm2-135m"]["spec"]
    assert small["replicas"] == 2
    resources = small["template"]["spec"]["containers"][0]["resources"]
    assert resources == {"requests": {"cpu": "2", "memory": "1500M"}, "limits": {"memory": "1500M"}}


def test_a_spot_worker_joins_drains_on_notice_and_is_started_again(tmp_path: Path) -> None:
    fleet = read_fleet(written(tmp_path))
    small, big = (yaml.safe_load(task(fleet, pool, "house-1")) for pool in fleet.workers)
    assert big["resources"]["accelerators"] == "L4:1" and big["resources"]["use_spot"] is True
    assert small["resources"]["cpus"] == "2+" and small["resources"]["memory"] == "1.5+"
    assert small["resources"]["job_recovery"]["recover_on_exit_codes"] == [75]
    assert small["resources"]["any_of"] == [{"infra": "aws/us-east-1"}, {"infra": "gcp"}]
    assert small["secrets"] == {"CHAKU_JOIN_TOKEN": None, "HF_TOKEN": None}
    assert "chaku pull smollm2-135m" in small["setup"] and "chaku pull hf:org/big" in big["setup"]
    text = small["run"].split("<<'END_OF_SETTINGS'\n")[1].split("\nEND_OF_SETTINGS\n")[0]
    worker = WorkerConfig.model_validate(yaml.safe_load(text))
    assert worker.spot_notice and worker.join == ("https://chat.example",) and worker.model.slots == 4
    assert small["run"].endswith('--advertise "http://$SKYPILOT_NODE_IPS:9001"\n')
    assert subprocess.run(["bash", "-n"], input=small["run"] + small["setup"], text=True).returncode == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sky": {}}, "need a gateway that they can reach"),
        ({"workers": [{"source": "smollm2-135m", "gpus": 1}]}, "SkyPilot needs its kind"),
        ({"workers": [{"source": "./mine.gguf", "name": "mine"}]}, "is a file of this machine"),
    ],
)
def test_what_a_spot_machine_can_not_do_is_refused_before_anything_costs(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.gguf").touch()
    if "mine" in str(changes):
        changes = {"workers": [{**changes["workers"][0], "source": str(tmp_path / "mine.gguf")}]}
    with pytest.raises(UsageError, match=words):
        chaku("up", str(written(tmp_path, **changes)), "--on", "sky", "--dry-run")


def test_kubectl_and_sky_are_asked_to_start_scale_and_end(tmp_path: Path) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("kubectl", "sky"):
        (tools / name).write_text(TOOL)
        (tools / name).chmod(0o755)
    log = tmp_path / "log"
    env = {"PATH": f"{tools}:{os.environ['PATH']}", "TOOL_LOG": str(log), "CHAKU_DATA": str(tmp_path / "data")}
    file = str(written(tmp_path))
    for on in ("k8s", "sky"):
        assert chaku("up", file, "--on", on, **env).exit_code == 0
        chaku("fleet", "scale", "smollm2-135m", "3", **env)
        chaku("fleet", "scale", "smollm2-135m", "1", **env)
        assert "fleet house is down" in chaku("down", file, **env).output
        with pytest.raises(UsageError, match="no fleet is up"):
            chaku("down", **env)
    asked = [line.split(" /tmp")[0] for line in log.read_text().splitlines()]
    launch = "sky jobs launch -y --async --secret CHAKU_JOIN_TOKEN --secret HF_TOKEN"
    asked = [launch if line.startswith(launch) else line for line in asked]
    assert asked == [
        "kubectl apply -f -",
        "kubectl scale -n default deployment/house-smollm2-135m --replicas=3",
        "kubectl scale -n default deployment/house-smollm2-135m --replicas=1",
        "kubectl delete --ignore-not-found -f -",
        *[launch] * 4,
        "sky jobs cancel -y -n house-smollm2-135m-2",
        "sky jobs cancel -y -n house-smollm2-135m-3",
        "sky jobs cancel -y -n house-smollm2-135m-1",
        "sky jobs cancel -y -n house-big-model-1",
    ]
    assert len(list(yaml.safe_load_all(Path(f"{log}.stdin").read_text()))) == 7
    with pytest.raises(UsageError, match="kubectl ended with exit code 3"):
        chaku("up", file, "--on", "k8s", TOOL_CODE="3", **env)


LOADER = """
import json, sys
import sky
from sky.server import plugins
plugins._plugins_loaded = True  # with IS_SKYPILOT_SERVER: as strict as the server that runs the job
task = sky.Task.from_yaml(sys.argv[1])
resources = list(task.resources)
print("SAID" + json.dumps({"spot": [one.use_spot for one in resources], "name": task.name,
    "ports": [one.ports for one in resources], "places": [str(one.infra) for one in resources],
    "recovery": [one.job_recovery for one in resources]}))
"""


@pytest.mark.wheel
@pytest.mark.prove
def test_skypilot_loads_a_worker(skypilot: Path, tmp_path: Path) -> None:
    fleet = read_fleet(written(tmp_path))
    file = tmp_path / "task.yaml"
    file.write_text(task(fleet, fleet.workers[0], "house-1"))
    alone = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    secrets = {"CHAKU_JOIN_TOKEN": "t", "HF_TOKEN": "t"}
    done = subprocess.run(
        [str(skypilot), "-c", LOADER, str(file)],
        env={**alone, **secrets, "HOME": str(tmp_path), "IS_SKYPILOT_SERVER": "true"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "SAID" in done.stdout, done.stderr
    said = json.loads(done.stdout.partition("SAID")[2])
    assert said["spot"] == [True, True] and said["name"] == "house-1"
    assert all("9001" in ports for ports in said["ports"])
    assert all(one["recover_on_exit_codes"] == [75] for one in said["recovery"])
