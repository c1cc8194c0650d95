"""What `chaku launch train --on sky` renders: read by SkyPilot's own loader, and run here as SkyPilot would run it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from click.testing import CliRunner, Result

from chaku.cli.main import root
from chaku.errors import ChakuError, UsageError
from data.made import write_json
from launch.skypilot import skypilot
from processes import PATIENCE_S, environment
from train import small

__all__ = ["skypilot"]


def launch(recipe: Path, *words: object, bucket: str = "s3://my-bucket/chaku") -> Result:
    line = ["launch", "train", str(recipe), "--on", "sky", "--bucket", bucket, *map(str, words)]
    return CliRunner().invoke(root, line, catch_exceptions=False)


def rendered(recipe: Path, *words: object, **more: str) -> dict[str, Any]:
    result = launch(recipe, "--dry-run", *words, **more)
    assert result.exit_code == 0, result.output
    task: dict[str, Any] = yaml.safe_load(result.output)
    return task


def recipe_there(task: dict[str, Any]) -> dict[str, Any]:
    text = task["run"].split("<<'END_OF_RECIPE'\n")[1].split("\nEND_OF_RECIPE\n")[0]
    found: dict[str, Any] = yaml.safe_load(text)
    return found


@pytest.fixture
def raw(small_set: Path, tmp_path: Path) -> Path:
    """Raw files, the built-in model."""
    data = {"inputs": [str(small_set.with_suffix(".json"))], "context": 512}
    return write_json(tmp_path / "raw.yaml", {"name": "my run", "base": "smollm2-135m", "data": data})


@pytest.fixture
def built(base: Path, small_set: Path, tmp_path: Path) -> Path:
    """A built set and a base in a folder."""
    train = {**small.SETTINGS, "max_steps": 30, "epochs": 40, "micro_rows": 1, "output": "elsewhere"}
    return write_json(
        tmp_path / "built.yaml", {"name": "run", "base": str(base), "data": str(small_set), "train": train}
    )


def test_recipe_and_files_travel_and_the_runs_lie_in_the_bucket(raw: Path, small_set: Path) -> None:
    task = rendered(raw)
    assert task["name"] == "my-run" and task["num_nodes"] == 1
    source = str(small_set.with_suffix(".json"))
    assert task["file_mounts"] == {
        f"~/chaku/files/0/{Path(source).name}": source,
        "/runs": {"source": "s3://my-bucket/chaku", "mode": "MOUNT_CACHED", "type": "MODEL_CHECKPOINT_RW"},
    }
    assert recipe_there(task) == {
        "name": "my run",
        "base": "smollm2-135m",
        "data": {"inputs": [f"files/0/{Path(source).name}"], "context": 512},
        "train": {"output": "/runs", "spot_notice": True, "keep_last": 3},
    }
    assert task["setup"].splitlines()[-1] == "chaku pull smollm2-135m"


def test_spot_machines_are_recovered_behind_a_save_at_a_price_in_several_places(raw: Path) -> None:
    places = ("--infra", "aws/us-east-1", "--infra", "gcp/us-central1/us-central1-a")
    task = rendered(raw, "--gpu", "H100", "--count", 4, "--max-price", 9.5, *places)
    assert task["resources"] == {
        "accelerators": "H100:4",
        "use_spot": True,
        "max_hourly_cost": 9.5,
        "disk_size": 500,
        "job_recovery": {"max_restarts_on_errors": 3, "recover_on_exit_codes": [75]},
        "any_of": [{"infra": "aws/us-east-1"}, {"infra": "gcp/us-central1/us-central1-a"}],
    }


def test_several_nodes_write_into_a_bucket_that_all_of_them_see(built: Path, base: Path) -> None:
    task = rendered(built, "--nodes", 2, "--on-demand", bucket="gs://my-bucket")
    assert task["file_mounts"]["/runs"] == {"source": "gs://my-bucket", "mode": "MOUNT"}
    assert task["num_nodes"] == 2 and task["resources"]["use_spot"] is False
    assert "spot_notice" not in recipe_there(task)["train"]
    # a built set names its tokenizer by its path, so that is where it must lie
    assert task["file_mounts"][str(base)] == str(base)


def test_a_secret_goes_by_its_name_alone(raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    changed = ("--set", "base=meta/llama", "--set", "train.track=wandb")
    text = launch(raw, "--dry-run", *changed).output
    assert yaml.safe_load(text)["secrets"] == {"HF_TOKEN": None, "WANDB_API_KEY": None}
    assert "hf_secret" not in text
    shown = launch(raw, "-o", tmp_path / "task.yaml", *changed).output
    assert f"sky jobs launch -y --secret HF_TOKEN --secret WANDB_API_KEY {tmp_path / 'task.yaml'}" in shown
    with pytest.raises(UsageError) as caught:
        launch(raw, "--dry-run", "--secret", "KEY=hidden")
    assert "KEY" in str(caught.value) and "hidden" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "more", "said"),
    [
        (["--nodes", 2], {}, "each node's part later: give a gs:// bucket"),
        (["--nodes", 2], {"bucket": "gs://b"}, "can't build one set together: build it first"),
        (["--set", "train.method=qlora"], {}, "qlora runs in one process"),
        ([], {"bucket": "my-bucket"}, "my-bucket is not a bucket"),
        (["--max-price", 0], {}, "--max-price is 0, it must be above 0"),
        (["--set", "data.inputs=[nowhere.json]"], {}, "there is no nowhere.json"),
        (["--set", "data.tokenizer=org/other"], {}, "data.tokenizer is org/other, but the base is"),
        (["--set", "base=./nowhere"], {}, "base './nowhere' is not a folder"),
        (["--set", "train.epochs=0"], {}, "epochs is 0"),
        (["--wheel", "nowhere.whl"], {}, "there is no nowhere.whl"),
        (["--name", "--"], {}, "is not a name for a job"),
    ],
)
def test_what_can_not_run_there_is_refused_here(
    raw: Path, words: list[object], more: dict[str, str], said: str
) -> None:
    with pytest.raises(ChakuError) as caught:
        launch(raw, "--dry-run", *words, **more)
    assert said in f"{caught.value}: {caught.value.fix}"


def test_without_sky_the_error_says_how_to_install_it(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UsageError) as caught:
        launch(raw)
    assert "uv tool install" in str(caught.value.fix) and "-o task.yaml" in str(caught.value.fix)


def test_it_submits_through_sky_and_hands_its_failure_on(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "sky"
    program.parent.mkdir()
    program.write_text(
        f'#!/bin/sh\necho "$@" > {tmp_path}/words\ncp "$4" {tmp_path}/task.yaml\nexit $(cat {tmp_path}/code)\n'
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    (tmp_path / "code").write_text("0")
    assert launch(raw).exit_code == 0
    assert (tmp_path / "words").read_text().startswith("jobs launch -y ")
    assert yaml.safe_load((tmp_path / "task.yaml").read_text()) == rendered(raw)
    (tmp_path / "code").write_text("7")
    with pytest.raises(UsageError, match="sky ended with exit code 7"):
        launch(raw)


@pytest.mark.prove
def test_two_nodes_train_save_when_one_is_asked_and_go_on_with_the_exit_codes_that_skypilot_needs(
    built: Path, tmp_path: Path
) -> None:
    """The rendered script, once for each node: mounts are copies, and the line that SkyPilot appends is appended."""
    task = rendered(built, "--nodes", 2, bucket="gs://my-bucket")
    runs = tmp_path / "runs"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    script = task["run"].replace("/runs", str(runs)).replace("29500", port)
    script += "\n__code=$?\necho uploads are through\nexit $__code\n"
    where = {"SKYPILOT_NUM_NODES": "2", "SKYPILOT_NODE_IPS": "127.0.0.1\n127.0.0.2", "SKYPILOT_NUM_GPUS_PER_NODE": "1"}
    where |= {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    homes = [tmp_path / "home-0", tmp_path / "home-1"]
    for home in homes:
        for there, source in task["file_mounts"].items():
            if isinstance(source, str) and there.startswith("~"):
                shutil.copytree(source, there.replace("~", str(home), 1))

    def start() -> list[subprocess.Popen[str]]:
        return [
            subprocess.Popen(
                ["bash", "-c", script],
                env=environment(**where, HOME=str(home), SKYPILOT_NODE_RANK=str(rank)),
                text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )
            for rank, home in enumerate(homes)
        ]  # fmt: skip

    first = start()
    log = runs / "run" / "log.jsonl"
    until = time.monotonic() + 2 * PATIENCE_S
    while not (log.exists() and log.read_text().count('"loss"') >= 3):
        assert all(node.poll() is None for node in first) and time.monotonic() < until
        time.sleep(0.02)
    (worker,) = [
        one for one in psutil.Process(first[1].pid).children(recursive=True) if "RANK" in one.environ()
    ]  # a spot notice reaches one machine
    worker.send_signal(signal.SIGTERM)
    for node in first:
        output = node.communicate(timeout=2 * PATIENCE_S)[0]
        assert node.returncode == 75 and output.endswith("uploads are through\n"), output
    for node in start():
        output = node.communicate(timeout=2 * PATIENCE_S)[0]
        assert node.returncode == 0, output
    assert [row[0] for row in small.numbers(runs / "run")] == list(range(1, 31))
    assert json.loads((runs / "run" / "manifest.json").read_text())["result"]["hardware"].startswith("2 x ")


CATALOGUE = {
    "common/accelerators.csv": "AcceleratorName,Clouds\nA100-80GB,\"['AWS', 'GCP']\"\nH100,\"['AWS', 'GCP']\"\n",
    "aws/vms.csv": "p4de.24xlarge,A100-80GB,8,96,1152,,40.96,12.0,us-east-1,us-east-1a\n",
    "gcp/vms.csv": "a2-ultragpu-8g,A100-80GB,8,96,1360,,40.55,16.2,us-central1,us-central1-a\n",
}
"""SkyPilot looks names and places up in tables that it fetches. These stand in: one machine in each of two clouds."""

COLUMNS = (
    "InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,GpuInfo,Price,SpotPrice,Region,AvailabilityZone\n"
)

LOADER = """
import json, sys
import sky
from sky import catalog
from sky.server import plugins
from sky.utils import dag_utils
plugins._plugins_loaded = True  # with IS_SKYPILOT_SERVER: as strict as the server that runs the job
said = {}
for file in sys.argv[1:]:
    try:
        task = sky.Task.from_yaml(file)
        task.validate()
        dag_utils.load_chain_dag_from_yaml(file).validate()
        affordable = [
            catalog.get_instance_type_for_accelerator(
                *list(one.accelerators.items())[0], use_spot=one.use_spot, max_hourly_cost=one.max_hourly_cost,
                clouds=str(one.cloud).lower())[0]
            for one in task.resources if one.cloud is not None]
        said[file] = {
            "nodes": task.num_nodes, "spot": [one.use_spot for one in task.resources],
            "recovery": [one.job_recovery for one in task.resources],
            "places": sorted(f"{one.cloud}/{one.region}/{one.zone}" for one in task.resources),
            "mode": task.storage_mounts["/runs"].mode.value, "affordable": affordable}
    except Exception as error:
        said[file] = {"refused": f"{type(error).__name__}: {error}"}
print("SAID" + json.dumps(said))
"""


@pytest.mark.wheel
@pytest.mark.prove
def test_skypilot_loads_every_variant_and_refuses_what_is_wrong(
    skypilot: Path, raw: Path, built: Path, small_set: Path, tmp_path: Path
) -> None:
    for name, rows in CATALOGUE.items():
        file = tmp_path / "home" / ".sky" / "catalogs" / "v8" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(rows if name.startswith("common") else COLUMNS + rows)
    places = ["--infra", "aws/us-east-1/us-east-1a", "--infra", "gcp/us-central1"]
    wheel = tmp_path / "chaku-0.1.0-py3-none-any.whl"
    wheel.touch()
    variants: dict[str, tuple[Path, list[object], str]] = {
        "spot": (raw, ["--secret", "HF_TOKEN"], "s3://my-bucket/chaku"),
        "on-demand": (raw, ["--on-demand", "--infra", "aws", "--wheel", wheel], "r2://my-bucket"),
        "cheap": (raw, ["--max-price", 11.9, "--infra", "aws/us-east-1"], "s3://my-bucket"),
        "dear": (raw, ["--max-price", 12.1, "--infra", "aws/us-east-1"], "s3://my-bucket"),
        "places": (built, places, "gs://my-bucket/a/b"),
        "nodes": (built, ["--nodes", 4, *places, "--max-price", 20], "gs://my-bucket"),
    }
    for name, (recipe, words, bucket) in variants.items():
        assert launch(recipe, "-o", tmp_path / f"{name}.yaml", *words, bucket=bucket).exit_code == 0
    good = (tmp_path / "dear.yaml").read_text()
    wrong = {
        "price": ("max_hourly_cost", "max_price", "unsupported field 'max_price'"),
        "recovery": ("recover_on_exit_codes", "recover_on_exits", "recover_on_exits"),
        "mode": ("MOUNT_CACHED", "MOUNT_SOMEHOW", "MOUNT_SOMEHOW"),
        "region": ("aws/us-east-1", "aws/us-nowhere-1", "us-nowhere-1"),
        "gpu": ("A100-80GB:8", "A100-80GB:eight", "A100-80GB:eight"),
        "file": (str(small_set.with_suffix(".json")), "/nowhere.json", "/nowhere.json"),
    }
    for name, (before, after, _) in wrong.items():
        assert before in good
        (tmp_path / f"wrong-{name}.yaml").write_text(good.replace(before, after))
    files = [str(tmp_path / f"{name}.yaml") for name in (*variants, *(f"wrong-{name}" for name in wrong))]
    alone = {key: value for key, value in environment().items() if key != "PYTHONPATH"}
    done = subprocess.run(
        [str(skypilot), "-c", LOADER, *files],
        env={**alone, "HOME": str(tmp_path / "home"), "IS_SKYPILOT_SERVER": "true"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert "SAID" in done.stdout, done.stderr
    said = {Path(file).stem: told for file, told in json.loads(done.stdout.partition("SAID")[2]).items()}
    recovery = {"max_restarts_on_errors": 3, "recover_on_exit_codes": [75], "strategy": None}
    for name in variants:
        assert "refused" not in said[name], said[name]
        assert all(one == recovery for one in said[name]["recovery"])
    spot = said["spot"]
    assert (spot["nodes"], spot["spot"], spot["places"]) == (1, [True], ["None/None/None"])
    assert spot["mode"] == said["on-demand"]["mode"] == "MOUNT_CACHED"
    assert said["on-demand"]["spot"] == [False] and said["on-demand"]["affordable"] == [["p4de.24xlarge"]]
    assert said["cheap"]["affordable"] == [[]] and said["dear"]["affordable"] == [["p4de.24xlarge"]]
    assert said["places"]["places"] == ["AWS/us-east-1/us-east-1a", "GCP/us-central1/None"]
    assert said["nodes"]["nodes"] == 4 and said["nodes"]["mode"] == "MOUNT"
    for name, (*_, reason) in wrong.items():
        assert reason in said[f"wrong-{name}"].get("refused", ""), said[f"wrong-{name}"]


def test_rendering_needs_neither_torch_nor_sky(raw: Path) -> None:
    code = (
        "import sys; from chaku.train.config import read_recipe; from chaku.launch import sky, relaunch, rehearsal;"
        " from pathlib import Path; sky.render(read_recipe(Path(sys.argv[1])), sky.Cluster('s3://b'));"
        " sys.exit(bool({'torch', 'sky'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(raw)], env=environment()).returncode == 0
