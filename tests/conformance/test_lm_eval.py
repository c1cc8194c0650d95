"""lm-eval, unchanged and in an environment of its own, measures models that chaku serves."""

from __future__ import annotations

import json
import site
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from chaku_server import MODEL, ChakuServer, chaku_environment, serving
from empty_environment import EmptyEnvironment
from engines.llamacpp_calls import started, text_of, whole

pytestmark = [pytest.mark.model, pytest.mark.prove, pytest.mark.timeout(1800)]

LM_EVAL = "lm-eval[api]==0.4.13"
ITEMS = [
    ("The capital of France is", [" Paris", " Berlin", " Tokyo"], 0),
    ("Two plus two is", [" five", " four", " nine"], 1),
    ("The opposite of hot is", [" cold", " warm", " table"], 0),
    ("A dog is a kind of", [" fruit", " stone", " animal"], 2),
    ("Bananas are usually", [" yellow", " blue", " purple"], 0),
    ("Water freezes at zero degrees", [" Fahrenheit", " Celsius", " Kelvin"], 1),
    ("The chemical symbol of gold is", [" Ag", " Au", " Fe"], 1),
    ("A spider has this many legs:", [" six", " eight", " ten"], 1),
    ("The author of Faust is", [" Shakespeare", " Dante", " Goethe"], 2),
    ("The largest planet is", [" Mars", " Jupiter", " Venus"], 1),
]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter with lm-eval, and all that this one has."""
    environment = EmptyEnvironment.make(tmp_path_factory.mktemp("lm-eval") / "venv")
    (packages,) = environment.folder.glob("lib/python*/site-packages")
    lines = [f"import site; site.addsitedir({folder!r})" for folder in site.getsitepackages()]
    (packages / "ours.pth").write_text("\n".join(lines))
    environment.install(LM_EVAL)
    return environment.folder / "bin" / "python"


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    rows = [{"question": question, "choices": choices, "answer": answer} for question, choices, answer in ITEMS]
    (folder / "items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shared = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "items.jsonl")}},
        "test_split": "test",
        "doc_to_text": "{{question}}",
        "target_delimiter": "",
    }
    choosing = {
        "task": "chaku_facts", "output_type": "multiple_choice", "doc_to_choice": "{{choices}}",
        "doc_to_target": "{{answer}}", "metric_list": [{"metric": "acc"}],
    }  # fmt: skip
    writing = {
        "task": "chaku_says", "output_type": "generate_until", "doc_to_target": "{{choices[answer]}}",
        "generation_kwargs": {"until": ["\n"], "max_gen_toks": 8, "do_sample": False, "temperature": 0},
        "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    for task in (choosing, writing):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump({**shared, **task}))
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, smollm2_folder: Path) -> Iterator[ChakuServer]:
    """The real model twice: exact, in fp32 on transformers, and quick, on llama.cpp."""
    home = tmp_path_factory.mktemp("served")
    small = {"context": 512, "slots": 4, "threads": 1}
    exact = {
        "source": str(smollm2_folder),
        "name": "exact",
        "engine": "transformers",
        "engine_args": {"dtype": "float32"},
    }
    (home / "serve.yaml").write_text(
        yaml.safe_dump({"models": [{**exact, **small}, {"source": MODEL, "name": "quick", **small}]})
    )
    with serving(home, "--config", str(home / "serve.yaml"), "--no-ui") as server:
        yield server


def run(home: Path, *command: str) -> str:
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(home / "hf"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=chaku_environment(home, **offline), capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stdout


def samples_in(folder: Path) -> list[dict[str, Any]]:
    (file,) = folder.rglob("samples_*.jsonl")
    return sorted(map(json.loads, file.read_text().splitlines()), key=lambda row: int(row["doc_id"]))


def test_likelihoods_are_those_of_its_own_model(
    python: Path, tasks: Path, served: ChakuServer, smollm2_folder: Path, tmp_path: Path
) -> None:
    command = ["-m", "chaku", "eval", "bench", "-m", "exact", "--tasks", "chaku_facts", "--task-folder", str(tasks)]
    command += [
        "--tokenizer",
        str(smollm2_folder),
        "-o",
        str(tmp_path / "ours"),
        "--base-url",
        served.base_url,
        "--json",
    ]
    (result,) = json.loads(run(tmp_path, str(python), *command))["results"]
    theirs = ["-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={smollm2_folder},dtype=float32"]
    theirs += ["--device", "cpu", "--batch_size", "1", "--tasks", "chaku_facts", "--include_path", str(tasks)]
    run(tmp_path, str(python), *theirs, "--output_path", str(tmp_path / "theirs"), "--log_samples")
    for our_row, their_row in zip(samples_in(tmp_path / "ours"), samples_in(tmp_path / "theirs"), strict=True):
        for our_answer, their_answer in zip(our_row["resps"], their_row["resps"], strict=True):
            assert float(our_answer[0][0]) == pytest.approx(float(their_answer[0][0]), abs=1e-3)
            assert our_answer[0][1] == their_answer[0][1]  # whether it is the greedy continuation
        assert our_row["acc"] == their_row["acc"]
    assert (result["task"], result["metric"], result["num"]) == ("chaku_facts", "acc", len(ITEMS))
    assert 0.2 <= result["value"] <= 0.8 and result["low"] < result["value"] < result["high"]


async def test_generated_answers_are_the_engine_s_own(
    python: Path, tasks: Path, served: ChakuServer, smollm2_path: Path, tmp_path: Path
) -> None:
    command = ["-m", "chaku", "eval", "bench", "-m", "quick", "--tasks", "chaku_says", "--task-folder", str(tasks)]
    command += ["-o", str(tmp_path / "ours"), "--base-url", served.base_url, "--parallel", "1"]
    assert "exact_match" in run(tmp_path, str(python), *command)
    engine = await started(smollm2_path)
    try:
        for (question, *_), row in zip(ITEMS, samples_in(tmp_path / "ours"), strict=True):
            answer = await whole(engine, "completions", prompt=question, stop=["\n"], max_tokens=8)
            assert row["resps"][0][0] == text_of(answer)
    finally:
        await engine.stop()
