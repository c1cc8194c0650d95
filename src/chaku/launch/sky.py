"""A recipe as a SkyPilot managed job: one YAML file that starts anywhere, saves into a bucket and goes on when taken.

Written for SkyPilot 0.14; nothing of it is imported. Imports no torch.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

import chaku
from chaku.data.recipe import DataConfig, Recipe, base_of_recipe, data_config
from chaku.errors import RunInterrupted, UsageError
from chaku.train.config import is_hub_id, train_config

RUNS = "/runs"
HOME = "~/chaku"
_EXTRAS = "[data,train]"
_PYTHON = "3.12"
_RESTARTS_ON_ERRORS = 3
"""For lost processes; an exit with 75 is never counted."""
_SECONDS_TO_SAVE = 110
"""What torchrun gives the processes on SIGTERM. AWS says two minutes before it takes a machine."""
_KEPT_BEHIND_UPLOADS = 3
_JOB_NAME = re.compile(r"[a-zA-Z0-9]+(?:[._-]{1,2}[a-zA-Z0-9]+)*")

# How SkyPilot mounts a bucket. MOUNT on an S3-like one is goofys, which can't append to a file, so there were no log;
# on Google's it is gcsfuse, which can, and has uploaded a file once it is closed. MOUNT_CACHED is rclone: every file
# operation works, uploads follow in the background, and SkyPilot waits for them when the job ends, whatever its exit
# code. A checkpoint whose upload was cut off fails its hashes and is passed over.
DIRECT, CACHED = "MOUNT", "MOUNT_CACHED"
BUCKETS = {"gs://": DIRECT, "s3://": CACHED, "r2://": CACHED, "nebius://": CACHED, "https://": CACHED}


@dataclass(frozen=True)
class Cluster:
    """Where a job may run and what it may cost."""

    bucket: str
    gpu: str = "A100-80GB"
    count: int = 8
    """GPUs of one node."""
    nodes: int = 1
    spot: bool = True
    max_price: float | None = None
    """Dollars an hour for one node, by SkyPilot's catalogue, when it looks for one."""
    infra: tuple[str, ...] = ()
    """Places to look, as cloud/region/zone; none means anywhere."""
    disk_gb: int = 500
    secrets: tuple[str, ...] = ()
    """Names of variables that `sky jobs launch` takes from its own environment."""
    wheel: Path | None = None
    setup: str | None = None

    @property
    def mode(self) -> str:
        """How the bucket is mounted. Raises UsageError for one that SkyPilot does not know."""
        for scheme, mode in BUCKETS.items():
            if self.bucket.startswith(scheme):
                return mode
        known = ", ".join(BUCKETS)
        raise UsageError(f"--bucket {self.bucket} is not a bucket", fix=f"write it with {known} in front")


@dataclass(frozen=True)
class Task:
    """A rendered job."""

    text: str
    secrets: tuple[str, ...]

    def submission(self, file: Path) -> list[str]:
        """The command that submits it. Secrets go by name: `sky` reads their values where it runs."""
        named = [word for secret in self.secrets for word in ("--secret", secret)]
        return ["sky", "jobs", "launch", "-y", *named, str(file)]


@dataclass
class _Files:
    """What travels to the cluster, and where it lies there: relative to the folder that the job works in."""

    mounts: dict[str, Any] = field(default_factory=dict)
    pulls: list[str] = field(default_factory=list)

    def take(self, path: Path, what: str) -> str:
        """Bring a local file or folder along; its path there."""
        source = path.expanduser().resolve()
        if not source.exists():
            raise UsageError(f"{what}: there is no {path}", fix="check the path")
        there = f"files/{len(self.mounts)}/{source.name}"
        for known, other in self.mounts.items():
            if other == str(source):
                return known.removeprefix(f"{HOME}/")
        self.mounts[f"{HOME}/{there}"] = str(source)
        return there

    def take_in_place(self, path: Path, what: str) -> None:
        """Bring along what a built set names by its path, to the same path."""
        if ".." in path.parts or path.parts[:1] == ("~",):
            raise UsageError(
                f"{what} {path} can't be copied to the same path elsewhere", fix="build the set with an absolute path"
            )
        if not path.exists():
            raise UsageError(f"{what}: there is no {path}", fix="check the path")
        self.mounts[str(path if path.is_absolute() else Path(HOME) / path)] = str(path.resolve())

    def pull(self, name: str) -> None:
        """Have a model fetched there."""
        if name not in self.pulls:
            self.pulls.append(name)


def render(recipe: Recipe, cluster: Cluster, name: str | None = None) -> Task:
    """The task for a recipe. Raises UsageError for what can't run there, before anything is paid for."""
    files = _Files()
    there = _recipe_there(recipe, cluster, files)
    secrets = _secrets(recipe, cluster)
    job = name or re.sub(r"[^a-zA-Z0-9]+", "-", recipe.name).strip("-")
    if not _JOB_NAME.fullmatch(job):
        raise UsageError(f"{job!r} is not a name for a job", fix="give --name with letters, digits and dashes")
    setup = _setup(recipe, cluster, files)
    storage = {"source": cluster.bucket.rstrip("/"), "mode": cluster.mode}
    if cluster.mode == CACHED:
        storage["type"] = "MODEL_CHECKPOINT_RW"
    task = {
        "name": job,
        "resources": _resources(cluster),
        "num_nodes": cluster.nodes,
        "file_mounts": {**files.mounts, RUNS: storage},
        **({"secrets": dict.fromkeys(secrets)} if secrets else {}),
        "setup": setup,
        "run": _run(there),
    }
    command = shlex.join(Task("", secrets).submission(Path("THIS_FILE")))
    head = f"# {recipe.name} as a SkyPilot managed job, by chaku {chaku.__version__}. To submit it: {command}\n"
    return Task(head + block_yaml(task), secrets)


def _resources(cluster: Cluster) -> dict[str, Any]:
    if cluster.max_price is not None and cluster.max_price <= 0:
        raise UsageError(
            f"--max-price is {cluster.max_price:g}, it must be above 0", fix="give dollars an hour for one node"
        )
    price = {} if cluster.max_price is None else {"max_hourly_cost": cluster.max_price}
    recovery = {
        "max_restarts_on_errors": _RESTARTS_ON_ERRORS,
        "recover_on_exit_codes": [RunInterrupted.exit_code],
    }
    return {
        "accelerators": f"{cluster.gpu}:{cluster.count}", "use_spot": cluster.spot, **price,
        "disk_size": cluster.disk_gb, "job_recovery": recovery, **places(cluster.infra),
    }  # fmt: skip


def places(infra: tuple[str, ...]) -> dict[str, Any]:
    """The part of a task's resources that says where to look, as cloud/region/zone; anywhere for none."""
    if len(infra) > 1:
        return {"any_of": [{"infra": place} for place in infra]}
    return {"infra": infra[0]} if infra else {}


def _recipe_there(recipe: Recipe, cluster: Cluster, files: _Files) -> dict[str, Any]:
    """The recipe with the paths of the cluster."""
    config, data, base = train_config(recipe), data_config(recipe), base_of_recipe(recipe)
    if config.method == "qlora" and cluster.count * cluster.nodes > 1:
        raise UsageError("qlora runs in one process", fix="say --count 1 --nodes 1, or method: lora")
    if cluster.nodes > 1 and cluster.mode == CACHED:
        raise UsageError(
            f"{cluster.nodes} nodes write one checkpoint together, and {cluster.bucket} gets each node's part later",
            fix="give a gs:// bucket, whose files all nodes see once they are closed, or take one larger node",
        )
    if cluster.nodes > 1 and isinstance(data, DataConfig):
        raise UsageError(
            f"{cluster.nodes} nodes can't build one set together",
            fix="build it first: chaku data build --recipe RECIPE -o SET, then --set data=SET",
        )
    there = recipe.model_dump(mode="json", exclude_unset=True)
    there |= {"name": recipe.name, "base": _model(base, files)}
    if isinstance(data, Path):
        there["data"] = _set(data, base, files)
    else:
        there["data"] = _raw(data, base, there.get("data", {}), files)
    settings: dict[str, Any] = {"output": RUNS}
    if cluster.spot:
        settings["spot_notice"] = True
    if cluster.mode == CACHED and config.keep_last < _KEPT_BEHIND_UPLOADS:
        settings["keep_last"] = _KEPT_BEHIND_UPLOADS  # an older one is deleted while the newest is still on its way
    there["train"] = there.get("train", {}) | settings
    return there


def _model(name: str, files: _Files) -> str:
    from chaku.models.registry import BUILT_IN

    if name in BUILT_IN and not Path(name).is_dir():
        files.pull(name)
        return name
    if Path(name).expanduser().exists():
        return files.take(Path(name), "base")
    if not is_hub_id(name):
        raise UsageError(
            f"base {name!r} is not a folder, GGUF, built-in name or hub id", fix="check `base` in the recipe"
        )
    return name


def _tokenizer_is_here(source: str) -> bool:
    from chaku.models.reference import LocalFile, LocalFolder, parse_reference

    return Path(source).expanduser().exists() or isinstance(parse_reference(source), LocalFile | LocalFolder)


def _comes_with(base: str, source: str) -> bool:
    """Whether a tokenizer is on the hub, and is fetched there because the base is. Raises UsageError if it is not."""
    if not is_hub_id(source):
        return False
    if source != base:
        raise UsageError(f"data.tokenizer is {source}, but the base is {base}", fix="leave it out, or name a folder")
    return True


def _set(folder: Path, base: str, files: _Files) -> str:
    from chaku.train.rows import checked_manifest

    source = checked_manifest(folder)["tokenizer"]["source"]
    if _comes_with(base, source):
        pass
    elif _tokenizer_is_here(source):
        files.take_in_place(Path(source), f"the tokenizer of {folder}")
    else:
        files.pull(source)
    return files.take(folder, "data")


def _raw(data: DataConfig, base: str, section: dict[str, Any], files: _Files) -> dict[str, Any]:
    if not data.inputs:
        raise UsageError("the recipe names no data", fix="give data: {inputs: [FILE]}, or the folder of a built set")
    moved: dict[str, Any] = {"inputs": [files.take(path, "data.inputs") for path in data.inputs]}
    if data.decontaminate:
        moved["decontaminate"] = [files.take(path, "data.decontaminate") for path in data.decontaminate]
    if _comes_with(base, data.tokenizer):
        moved["tokenizer"] = data.tokenizer
    elif _tokenizer_is_here(data.tokenizer):
        moved["tokenizer"] = files.take(Path(data.tokenizer), "data.tokenizer")
    else:
        files.pull(data.tokenizer)
    return section | moved


def _secrets(recipe: Recipe, cluster: Cluster) -> tuple[str, ...]:
    """What was named, and what the recipe can't do without."""
    data = data_config(recipe)
    needed = list(cluster.secrets)
    if isinstance(data, DataConfig) and data.moderation is not None and data.moderation.api_key_env:
        needed.append(data.moderation.api_key_env)
    if train_config(recipe).track == "wandb":
        needed.append("WANDB_API_KEY")
    for name in needed:
        if not name.isidentifier():
            name = name.partition("=")[0]  # whatever follows is not repeated
            raise UsageError(f"--secret {name} is not a variable's name", fix="give the name alone: --secret HF_TOKEN")
    return tuple(dict.fromkeys(needed))


def _setup(recipe: Recipe, cluster: Cluster, files: _Files) -> str:
    track = train_config(recipe).track
    what = f"chaku{_EXTRAS}=={chaku.__version__}"
    if cluster.wheel is not None:
        what = f"./{files.take(cluster.wheel, '--wheel')}{_EXTRAS}"
    install = cluster.setup or install_lines(what, *([track] if track else []))
    pulls = [f"chaku pull {shlex.quote(name)}" for name in files.pulls]
    return "\n".join(["set -e", f"mkdir -p {HOME} && cd {HOME}", install.strip(), *pulls]) + "\n"


def install_lines(*packages: str) -> str:
    """Shell lines that install packages into an environment `.venv`, and enter it."""
    lines = [
        "pip install -q uv",
        f"uv venv -q --allow-existing --python {_PYTHON} .venv",
        ". .venv/bin/activate",
        f"uv pip install -q {shlex.join(packages)}",
    ]
    return "\n".join(lines)


def _run(recipe: dict[str, Any]) -> str:
    """Ends with torchrun's line and no `exit`: SkyPilot appends its wait for the uploads, and keeps the exit code."""
    text = yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)
    return "\n".join(
        [
            f"cd {HOME}",
            "[ -f .venv/bin/activate ] && . .venv/bin/activate",
            "cat > recipe.yaml <<'END_OF_RECIPE'",
            text.rstrip("\n"),
            "END_OF_RECIPE",
            "# torchrun, with the exit code of the run instead of 1",
            "python -m chaku.launch.torchrun \\",
            '  --nnodes "$SKYPILOT_NUM_NODES" --node-rank "$SKYPILOT_NODE_RANK" \\',
            '  --nproc-per-node "$SKYPILOT_NUM_GPUS_PER_NODE" \\',
            '  --master-addr "$(echo "$SKYPILOT_NODE_IPS" | head -n 1)" --master-port 29500 \\',
            f"  --shutdown-timeout {_SECONDS_TO_SAVE} \\",
            "  -m chaku train recipe.yaml --resume auto",
            "",
        ]
    )


def block_yaml(task: dict[str, Any]) -> str:
    """A task as YAML, its shell lines as blocks."""
    return yaml.dump(task, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)
