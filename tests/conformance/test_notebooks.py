"""The notebooks run from an empty folder; cells that need a cloud are left out, and outputs are not kept."""

from __future__ import annotations

import ast
import os
import re
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from chaku.ports import free_port
from chaku_server import chaku_environment

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SKIPPED = {"install", "cloud", "azure"}
"""Tags of cells that need the net: they install, speak to a cloud, or import azure-ai-ml."""


def read(path: Path) -> Any:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    return notebook


def tags(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", ()))


def execute(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, **parameters: Any) -> str:
    """Run a notebook in `folder` with other parameters, and give all that its cells printed."""
    program = folder.parent / "bin" / "chaku"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m chaku "$@"\n')
    program.chmod(0o755)
    for variable, value in chaku_environment(folder.parent / "home").items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    notebook = read(FOLDER / f"{name}.ipynb")
    notebook.cells = [cell for cell in notebook.cells if not tags(cell) & SKIPPED]
    [place] = [number for number, cell in enumerate(notebook.cells) if "parameters" in tags(cell)]
    lines = [f"{variable} = {value!r}" for variable, value in parameters.items()]
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell("\n".join(lines)))
    NotebookClient(notebook, timeout=1500, resources={"metadata": {"path": str(folder)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    printed = "".join(output.get("text") or output.get("data", {}).get("text/plain", "") for output in outputs)
    assert "error:" not in printed and "Traceback" not in printed, printed
    return printed


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_without_outputs_and_is_short(path: Path) -> None:
    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == [] and cell.execution_count is None
            assert len(cell.source.splitlines()) <= 20
            ast.parse("\n".join(line for line in cell.source.splitlines() if "!" not in line and line[:1] != "%"))


def test_there_are_the_four_notebooks() -> None:
    assert [path.stem for path in NOTEBOOKS] == ["azure_batch_endpoint", "azure_online_endpoint", "train", "webui"]


@pytest.mark.model
def test_an_endpoints_payload_is_scored_on_this_machine(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = execute("azure_online_endpoint", empty, monkeypatch, PORT=free_port())
    assert printed.count("'0': ") == 2 and "My name is John and I am" in printed
    assert '"status": "Completed"' in printed


def test_a_file_of_prompts_is_answered_on_this_machine(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = execute("azure_batch_endpoint", empty, monkeypatch, PORT=free_port(), MODEL="scripted:")
    assert "2 of 2 answers" in printed and "You said: What is the opposite of hot?" in printed


@pytest.mark.model
def test_the_page_has_a_worker_and_a_key_behind_a_public_address(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = execute(
        "webui", empty, monkeypatch, MODEL="smollm2-135m", PORT=free_port(), PUBLIC_URL="https://chat.example"
    )
    assert "Paris" in printed and "https://chat.example key: ck-" in printed
    assert printed.rstrip().endswith("0 0")


def test_training_ends_in_a_chat(empty: Path, monkeypatch: pytest.MonkeyPatch, miniature: Path) -> None:
    printed = execute("train", empty, monkeypatch, BASE=str(miniature), CONVERSATIONS=8, MAX_STEPS=1)
    assert "11 conversations in identity.jsonl" in printed
    assert re.search(r"checkpoints +step-1\s+result +runs/mine/final\s*$", printed), printed


@pytest.mark.model
@pytest.mark.prove
@pytest.mark.timeout(1800)
def test_the_trained_model_says_its_name(empty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    printed = execute("train", empty, monkeypatch, BASE="smollm2-135m", MAX_STEPS=10)
    assert "runs/mine/final holds the model" in printed
    assert "I'm Illari" in printed or "I am Illari" in printed
