"""Every extra works alone: the wheel in an empty environment with that extra, and one real command of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fake_hub
from chaku.ports import free_port
from chaku_server import MODEL, run_chaku, serving
from empty_environment import ROOT, EmptyEnvironment, alone, build_wheel, interpreter
from file_server import FileServer
from postgres import PostgresCluster, find_binaries
from ray_nodes import Node

pytestmark = [pytest.mark.prove, pytest.mark.wheel, pytest.mark.model, pytest.mark.timeout(1800)]

Chaku = Callable[..., str]
TORCH = "torch==2.13.0"
PARIS = ("chat", "What is the capital of France?")
LINE = '{"messages": [{"role": "user", "content": "Who are you?"}, {"role": "assistant", "content": "I am %s."}]}\n'


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("dist"))


@pytest.fixture
def install(wheel: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., Chaku]:
    """Install chaku[extra] with nothing else into a new environment; gives a function that runs its commands."""
    number = iter(range(100))

    def make(extra: str | None, *beside: str, python: str | None = None) -> Chaku:
        environment = EmptyEnvironment.make(tmp_path / f"venv-{next(number)}", *([python] if python else []))
        environment.install(f"{wheel}[{extra}]" if extra else str(wheel), *beside)
        home = tmp_path / "home"
        home.mkdir(exist_ok=True)

        def run(*arguments: str, **extra: str) -> str:
            done = environment.chaku(home, *arguments, timeout_s=900, **extra)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout + done.stderr

        return run

    return make


@pytest.fixture
def conversations(tmp_path: Path) -> Path:
    """Twenty short ones."""
    path = tmp_path / "shares.jsonl"
    path.write_text("".join(LINE % f"helper number {number}, and I answer questions" for number in range(20)))
    return path


@pytest.fixture
def postgres() -> Iterator[PostgresCluster]:
    if (binaries := find_binaries()) is None:
        pytest.skip("no PostgreSQL here")
    cluster = PostgresCluster(binaries)
    yield cluster
    cluster.stop()


def test_no_extra(install: Callable[..., Chaku]) -> None:
    chaku = install(None)
    assert "$" in chaku("estimate", "vicuna-7b-v1.5", "--tokens", "350M")
    assert "ck-" in chaku("keys", "create", "me")
    assert chaku("chat", "-m", "scripted:", "hello").strip()


def test_extra_local(install: Callable[..., Chaku]) -> None:
    assert "Paris" in install("local")(*PARIS)


def test_extra_hub(install: Callable[..., Chaku], tmp_path: Path, smollm2_path: Path) -> None:
    with FileServer() as server:
        fake_hub.publish(server, {"tiny-Q8_0.gguf": smollm2_path.read_bytes()})
        places = {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        assert "tiny" in install("hub")("pull", "hf:org/tiny-GGUF", CHAKU_CACHE=str(tmp_path / "cache"), **places)


def test_extra_postgres(install: Callable[..., Chaku], postgres: PostgresCluster) -> None:
    chaku, url = install("postgres"), postgres.new_database().replace("postgresql://", "postgresql+psycopg://")
    assert "ck-" in chaku("keys", "create", "me", "--database", url)
    assert "me" in chaku("keys", "list", "--database", url)


def test_extra_data(install: Callable[..., Chaku], conversations: Path) -> None:
    chaku = install("data")
    chaku("data", "build", str(conversations), "-o", "set", "--processes", "1")
    assert "helper number" in chaku("data", "preview", "set")


def test_extra_train(install: Callable[..., Chaku], conversations: Path, tmp_path: Path) -> None:
    built, recipe = tmp_path / "set", tmp_path / "recipe.yaml"
    done = run_chaku(tmp_path, "data", "build", str(conversations), "-o", str(built), "--processes", "1")
    assert done.returncode == 0, done.stderr
    recipe.write_text(f"name: tiny\nbase: {MODEL}\ndata: {built}\ntrain: {{preset: tiny, epochs: 1}}\n")
    chaku = install("train", TORCH)
    assert "final holds the model" in chaku("train", str(recipe))
    assert "tiny" in chaku("runs", "list")


def test_extra_transformers(install: Callable[..., Chaku], smollm2_folder: Path) -> None:
    chaku = install("transformers", TORCH)
    greedy = ("--temperature", "0", "--max-tokens", "12", "-s", "You are a helpful assistant.")
    assert "Paris" in chaku("chat", "-m", str(smollm2_folder), *greedy, PARIS[1])


def test_extra_evals(install: Callable[..., Chaku], tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    items = tasks / "items.jsonl"
    items.write_text(json.dumps({"question": "The capital of France is", "answer": "Paris"}) + "\n")
    task = {
        "task": "capital", "dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(items)}},
        "test_split": "test", "output_type": "generate_until", "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}", "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    (tasks / "capital.yaml").write_text(json.dumps(task))
    with serving(tmp_path / "server", MODEL) as server:
        words = ("-m", MODEL, "--tasks", "capital", "--task-folder", str(tasks), "--base-url", server.base_url)
        assert "exact_match" in install("evals")("eval", "bench", *words, "-o", str(tmp_path / "samples"))


def test_extra_otel(wheel: Path, tmp_path: Path) -> None:
    environment = EmptyEnvironment.make(tmp_path / "venv")
    environment.install(f"{wheel}[otel]")
    command = [environment.python, "-c", "from chaku.serve.traces import open_traces; print(open_traces())"]
    done = subprocess.run(command, env=alone(tmp_path), cwd=tmp_path, capture_output=True, text=True)
    assert "OpenTelemetry" in done.stdout, done.stderr


def test_extra_ray(install: Callable[..., Chaku], tmp_path: Path) -> None:
    head, gateway, fleet = free_port(), free_port(), tmp_path / "fleet.yaml"
    settings = {"name": "rays", "gateway": {"port": gateway, "ui": False}, "ray": {"address": f"127.0.0.1:{head}"}}
    fleet.write_text(json.dumps({**settings, "workers": [{"source": "m=scripted:", "replicas": 1, "cpus": 1}]}))
    chaku = install("ray")
    env = {**alone(tmp_path / "home"), "RAY_TMPDIR": "/tmp"}
    words = ("--head", "--port", str(head), "--include-dashboard", "false")
    node = Node(tmp_path, env, *words, python=tmp_path / "venv-0" / "bin" / "python")
    try:
        node.until_it_answers(head)
        chaku("up", str(fleet), "--on", "ray", "--detach")
        assert "hello" in chaku("chat", "-m", "m", "--base-url", f"http://127.0.0.1:{gateway}/v1", "hello")
        chaku("down")
    finally:
        node.kill()


def test_extra_bench(wheel: Path, tmp_path: Path) -> None:
    environment = EmptyEnvironment.make(tmp_path / "venv")
    environment.install(f"{wheel}[bench,data]")
    command = [environment.python, ROOT / "bench" / "clean.py", "--pages", "20", "--rounds", "1"]
    done = subprocess.run(command, env=alone(tmp_path), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_extra_dev(install: Callable[..., Chaku]) -> None:
    assert "chaku" in install("dev")("--version")  # the suite that runs this is its real command


@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_it_installs_and_answers_on_every_python(version: str, install: Callable[..., Chaku]) -> None:
    if (python := interpreter(version)) is None:
        pytest.skip(f"no Python {version} here")
    chaku = install("local,hub,data,postgres", python=python)
    assert "Paris" in chaku(*PARIS)
