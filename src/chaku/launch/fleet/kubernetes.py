"""A fleet as Kubernetes objects: a Deployment for the gateway and for each pool, their ConfigMaps, and a Service.

Nothing of Kubernetes is imported: `kubectl` takes the manifest.
"""

from __future__ import annotations

from typing import Any

import chaku
from chaku.config import JOIN_TOKEN_VARIABLE
from chaku.launch.fleet.spec import FleetConfig, Pool, as_yaml, stem

GATEWAY_PORT = 8000
WORKER_PORT = 9001
JOIN_KEY, DATABASE_KEY = "join-token", "database"
"""Keys of the Secret."""
_CONFIG, _CACHE = "/etc/chaku", "/cache"
_END_S = 15
"""Seconds that a pod gets beyond the drain, for its end."""
_PROBE = {"tcpSocket": {"port": "http"}, "periodSeconds": 10, "timeoutSeconds": 5}
"""Not /health: it is 503 while no worker is there, and then workers could not join through the Service."""


def manifest(fleet: FleetConfig) -> str:
    """The objects as YAML documents, for `kubectl apply -f -`."""
    head = (
        f"# fleet {fleet.name}, by chaku {chaku.__version__}; its Secret {fleet.kubernetes.secret!r} is made by hand\n"
    )
    return head + "".join("---\n" + as_yaml(item) for item in objects(fleet))


def objects(fleet: FleetConfig) -> list[dict[str, Any]]:
    """The objects, those that others need first."""
    found = [_gateway_config(fleet), _gateway_service(fleet), _gateway(fleet)]
    for pool in fleet.workers:
        found += [_worker_config(fleet, pool), _workers(fleet, pool)]
    return found


def deployment_of(fleet: FleetConfig, pool: Pool) -> str:
    """The name of a pool's Deployment, for `kubectl scale`."""
    return stem(fleet, pool)


def _gateway_name(fleet: FleetConfig) -> str:
    return f"{fleet.name}-gateway"


def _meta(fleet: FleetConfig, name: str, part: str) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/name": "chaku",
        "app.kubernetes.io/instance": fleet.name,
        "app.kubernetes.io/component": part,
    }
    return {"name": name, "namespace": fleet.kubernetes.namespace, "labels": labels}


def _config_map(meta: dict[str, Any], file: str, settings: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {file: as_yaml(settings)}}


def _gateway_config(fleet: FleetConfig) -> dict[str, Any]:
    name = _gateway_name(fleet)
    given = fleet.gateway.model_dump(mode="json", exclude_unset=True)
    names = [name, f"{name}.{fleet.kubernetes.namespace}", f"{name}.{fleet.kubernetes.namespace}.svc"]
    given |= {"host": "0.0.0.0", "port": GATEWAY_PORT}  # noqa: S104 - callers need a key
    given["allowed_hosts"] = [*given.get("allowed_hosts", ()), *names]
    return _config_map(_meta(fleet, name, "gateway"), "gateway.yaml", given)


def _gateway_service(fleet: FleetConfig) -> dict[str, Any]:
    meta = _meta(fleet, _gateway_name(fleet), "gateway")
    port = {"name": "http", "port": GATEWAY_PORT, "targetPort": "http"}
    spec = {"type": fleet.kubernetes.service_type, "selector": meta["labels"], "ports": [port]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}


def _gateway(fleet: FleetConfig) -> dict[str, Any]:
    meta = _meta(fleet, _gateway_name(fleet), "gateway")
    container = {
        "name": "gateway",
        "image": fleet.kubernetes.image,
        "command": ["chaku", "serve", "--config", f"{_CONFIG}/gateway.yaml"],
        "env": [_secret_variable(fleet, "CHAKU_DATABASE", DATABASE_KEY)],
        "ports": [{"name": "http", "containerPort": GATEWAY_PORT}],
        "readinessProbe": _PROBE | {"periodSeconds": 2},
        "livenessProbe": _PROBE,
        "volumeMounts": [{"name": "config", "mountPath": _CONFIG, "readOnly": True}],
    }
    volumes = [{"name": "config", "configMap": {"name": meta["name"]}}]
    # Two gateways would each know half of the workers: the old one ends before the new one begins.
    return _deployment(meta, 1, container, volumes, end_s=_END_S, strategy="Recreate")


def _worker_config(fleet: FleetConfig, pool: Pool) -> dict[str, Any]:
    name = stem(fleet, pool)
    join = f"http://{_gateway_name(fleet)}:{GATEWAY_PORT}"
    settings = {"model": pool.settings, "join": [join], "host": "0.0.0.0", "port": WORKER_PORT}  # noqa: S104
    return _config_map(_meta(fleet, name, name), "worker.yaml", settings)


def _workers(fleet: FleetConfig, pool: Pool) -> dict[str, Any]:
    name = stem(fleet, pool)
    mounts = [{"name": "config", "mountPath": _CONFIG, "readOnly": True}, {"name": "cache", "mountPath": _CACHE}]
    claim = fleet.kubernetes.cache_claim
    cache = {"persistentVolumeClaim": {"claimName": claim}} if claim else {"emptyDir": {}}
    advertise = f"http://$(POD_IP):{WORKER_PORT}"  # Kubernetes puts the variable in
    container = {
        "name": "worker",
        "image": fleet.kubernetes.image,
        "command": ["chaku", "worker", "--config", f"{_CONFIG}/worker.yaml"],
        "args": ["--name", "$(POD_NAME)", "--advertise", advertise],
        "env": [
            _secret_variable(fleet, JOIN_TOKEN_VARIABLE, JOIN_KEY),
            _field_variable("POD_NAME", "metadata.name"),
            _field_variable("POD_IP", "status.podIP"),
            {"name": "CHAKU_CACHE", "value": _CACHE},
        ],
        "ports": [{"name": "http", "containerPort": WORKER_PORT}],
        "resources": _resources(pool),
        "livenessProbe": _PROBE,
        "volumeMounts": mounts,
    }
    volumes = [{"name": "config", "configMap": {"name": name}}, {"name": "cache", **cache}]
    end_s = int(fleet.drain_s) + _END_S
    found = _deployment(_meta(fleet, name, name), pool.replicas, container, volumes, end_s=end_s)
    if fleet.kubernetes.node_selector:
        found["spec"]["template"]["spec"]["nodeSelector"] = dict(fleet.kubernetes.node_selector)
    return found


def _deployment(
    meta: dict[str, Any],
    replicas: int,
    container: dict[str, Any],
    volumes: list[dict[str, Any]],
    *,
    end_s: int,
    strategy: str = "RollingUpdate",
) -> dict[str, Any]:
    pod = {"containers": [container], "volumes": volumes, "terminationGracePeriodSeconds": end_s}
    spec = {
        "replicas": replicas,
        "selector": {"matchLabels": meta["labels"]},
        "strategy": {"type": strategy},
        "template": {"metadata": {"labels": meta["labels"]}, "spec": pod},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": spec}


def _resources(pool: Pool) -> dict[str, Any]:
    """What the scheduler keeps free. CPU has no upper bound: an idle node's cores help."""
    requests = {
        **({"cpu": f"{pool.cpus:g}"} if pool.cpus else {}),
        **({"memory": f"{pool.memory_gb * 1000:.0f}M"} if pool.memory_gb else {}),
    }
    limits = {
        **({"memory": requests["memory"]} if "memory" in requests else {}),
        **({"nvidia.com/gpu": pool.gpus} if pool.gpus else {}),
    }
    return {key: value for key, value in (("requests", requests), ("limits", limits)) if value}


def _secret_variable(fleet: FleetConfig, name: str, key: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"secretKeyRef": {"name": fleet.kubernetes.secret, "key": key}}}


def _field_variable(name: str, path: str) -> dict[str, Any]:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}
