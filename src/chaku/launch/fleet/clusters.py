"""Fleets that a cluster runs: what is handed to `kubectl` and `sky`, and what is asked of them later."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

from chaku.errors import UsageError
from chaku.launch.fleet import kubernetes, sky
from chaku.launch.fleet.record import Record
from chaku.launch.fleet.spec import FleetConfig, Pool, worker_names

Cluster = Literal["k8s", "sky"]
CLUSTERS: tuple[Cluster, ...] = get_args(Cluster)
_INSTALL = {
    "kubectl": "install it as your cluster's documentation says, or write the manifest with --dry-run > fleet.k8s.yaml",
    "sky": "install it by itself, it wants an older click: uv tool install 'skypilot[aws]'; or look with --dry-run",
}


def rendered(fleet: FleetConfig, cluster: Cluster) -> str:
    """What the cluster would get, as YAML documents."""
    if cluster == "k8s":
        return kubernetes.manifest(fleet)
    return "---\n".join(sky.tasks(fleet).values())


def start(fleet: FleetConfig, cluster: Cluster, record: Record) -> None:
    """Hand everything over, and keep a record of it. Raises UsageError where the tool is missing or fails."""
    text = rendered(fleet, cluster)  # a mistake shows before anything is kept or started
    record.begin(fleet, cluster)
    record.tell({"place": cluster, "is_elsewhere": True, "workers": {}})  # what starts, even in part, can be ended
    if cluster == "k8s":
        _run(["kubectl", "apply", "-f", "-"], text)
    else:
        _submit(fleet, sky.tasks(fleet))


def end(fleet: FleetConfig, cluster: Cluster, record: Record) -> None:
    """Have the cluster end everything. Raises UsageError where the tool is missing or fails."""
    if cluster == "k8s":
        _run(["kubectl", "delete", "--ignore-not-found", "-f", "-"], kubernetes.manifest(fleet))
    else:
        for name in sky.tasks(fleet, record.wanted()):
            _run(sky.cancellation(name))
    record.tell({"place": cluster, "workers": {}})


def scale(fleet: FleetConfig, cluster: Cluster, record: Record, pool: Pool, number: int) -> None:
    """Change how many workers a pool has. Raises UsageError where the tool is missing or fails."""
    if cluster == "k8s":
        where = ["-n", fleet.kubernetes.namespace]
        _run(
            ["kubectl", "scale", *where, f"deployment/{kubernetes.deployment_of(fleet, pool)}", f"--replicas={number}"]
        )
    else:
        before = worker_names(fleet, pool, record.wanted().get(pool.model, pool.replicas))
        after = worker_names(fleet, pool, number)
        _submit(fleet, {name: sky.task(fleet, pool, name) for name in after if name not in before})
        for name in before:
            if name not in after:
                _run(sky.cancellation(name))
    record.want(pool.model, number)


def _submit(fleet: FleetConfig, files: dict[str, str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name, text in files.items():
            file = Path(folder) / f"{name}.yaml"
            file.write_text(text)
            _run(sky.submission(fleet, str(file)))


def _run(command: Sequence[str], text: str | None = None) -> None:
    """Run a tool with `text` as its standard input; it prints for itself."""
    tool = command[0]
    if shutil.which(tool) is None:
        raise UsageError(f"the command `{tool}` is not on PATH", fix=_INSTALL[tool])
    code = subprocess.run(command, input=text, text=True, check=False).returncode  # noqa: S603
    if code:
        raise UsageError(f"{tool} ended with exit code {code}", fix="its own message is above")
