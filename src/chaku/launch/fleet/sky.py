"""A fleet's workers as SkyPilot managed jobs, one YAML file for each: spot machines that join a running gateway.

A spot notice drains a worker. SkyPilot then starts it again elsewhere, and it joins again. Written for SkyPilot 0.14;
nothing of it is imported.
"""

from __future__ import annotations

import shlex
from typing import Any

import chaku
from chaku.config import JOIN_TOKEN_VARIABLE
from chaku.errors import RunInterrupted, UsageError
from chaku.launch.fleet.spec import FleetConfig, Pool, as_yaml, worker_names
from chaku.launch.sky import HOME, block_yaml, install_lines, places
from chaku.models.reference import Host, LocalFile, LocalFolder, Scripted, Upstream, parse

_EXTRAS = "[local,hub]"
_RESTARTS_ON_ERRORS = 3


def tasks(fleet: FleetConfig, number: dict[str, int] | None = None) -> dict[str, str]:
    """Job name to task file, for every worker; `number` changes how many a model has.

    Raises UsageError where the file names no gateway.
    """
    if fleet.sky.gateway is None:
        raise UsageError(
            "workers on other machines need a gateway that they can reach",
            fix="start one with `chaku serve`, and name it: sky: {gateway: https://chat.example}",
            param="sky.gateway",
        )
    wanted = number or {}
    return {
        name: task(fleet, pool, name)
        for pool in fleet.workers
        for name in worker_names(fleet, pool, wanted.get(pool.model, pool.replicas))
    }


def task(fleet: FleetConfig, pool: Pool, name: str) -> str:
    """The task file of one worker."""
    sky = fleet.sky
    secrets = dict.fromkeys((JOIN_TOKEN_VARIABLE, *sky.secrets))
    body = {
        "name": name,
        "resources": _resources(fleet, pool),
        "num_nodes": 1,
        "secrets": secrets,
        "setup": _setup(fleet, pool),
        "run": _run(fleet, pool, name),
    }
    command = shlex.join(submission(fleet, "THIS_FILE"))
    return f"# worker {name} as a SkyPilot managed job, by chaku {chaku.__version__}: {command}\n" + block_yaml(body)


def submission(fleet: FleetConfig, file: str) -> list[str]:
    """The command that submits a task. Secrets go by name: `sky` reads their values where it runs."""
    named = [word for secret in (JOIN_TOKEN_VARIABLE, *fleet.sky.secrets) for word in ("--secret", secret)]
    return ["sky", "jobs", "launch", "-y", "--async", *named, file]


def cancellation(name: str) -> list[str]:
    """The command that ends a worker."""
    return ["sky", "jobs", "cancel", "-y", "-n", name]


def _resources(fleet: FleetConfig, pool: Pool) -> dict[str, Any]:
    sky = fleet.sky
    if pool.gpus and pool.gpu is None:
        raise UsageError(f"{pool.model} wants a GPU, and SkyPilot needs its kind", fix="add gpu: L4", param="gpu")
    return {
        **({"accelerators": f"{pool.gpu}:{pool.gpus}"} if pool.gpus else {}),
        **({"cpus": f"{pool.cpus:g}+"} if pool.cpus else {}),
        **({"memory": f"{pool.memory_gb:g}+"} if pool.memory_gb else {}),
        "use_spot": sky.spot,
        **({"max_hourly_cost": sky.max_price} if sky.max_price is not None else {}),
        "disk_size": sky.disk_gb,
        "ports": [sky.port],
        "job_recovery": {
            "max_restarts_on_errors": _RESTARTS_ON_ERRORS,
            "recover_on_exit_codes": [RunInterrupted.exit_code],
        },
        **places(sky.infra),
    }


def _setup(fleet: FleetConfig, pool: Pool) -> str:
    install = fleet.sky.setup or install_lines(f"chaku{_EXTRAS}=={chaku.__version__}")
    source = parse(pool.source)
    if isinstance(source.reference, LocalFile | LocalFolder):
        raise UsageError(
            f"{source.source} is a file of this machine, which the workers don't have",
            fix="name a model that they can fetch: a built-in name, hf:org/name or an https URL",
            param="source",
        )
    is_fetched = not isinstance(source.reference, Scripted | Upstream | Host)
    pull = [f"chaku pull {shlex.quote(source.source)}"] if is_fetched else []
    return "\n".join(["set -e", f"mkdir -p {HOME} && cd {HOME}", install.strip(), *pull, ""])


def _run(fleet: FleetConfig, pool: Pool, name: str) -> str:
    """The worker's exit code is the job's: 75 after a notice, and SkyPilot starts it again elsewhere."""
    settings = {
        "model": pool.settings,
        "join": [fleet.sky.gateway],
        "name": name,
        "port": fleet.sky.port,
        "host": "0.0.0.0",  # noqa: S104 - it needs the worker's key
        "spot_notice": fleet.sky.spot,
    }
    return "\n".join(
        [
            f"cd {HOME}",
            "[ -f .venv/bin/activate ] && . .venv/bin/activate",
            "cat > worker.yaml <<'END_OF_SETTINGS'",
            as_yaml(settings).rstrip("\n"),
            "END_OF_SETTINGS",
            f'chaku worker --config worker.yaml --advertise "{fleet.sky.advertise}"',
            "",
        ]
    )
