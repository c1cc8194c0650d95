"""The README's commands run as printed: in a clone of their own, each section in an environment of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import fake_hub
from chaku_server import serving
from empty_environment import ROOT, EmptyEnvironment, alone
from file_server import FileServer
from terminal import Terminal

pytestmark = [pytest.mark.prove, pytest.mark.wheel, pytest.mark.model, pytest.mark.timeout(3000)]

README = (ROOT / "README.md").read_text()
PORTS = (8000, 8001, 11434)
"""Where the README's own server and its examples of other APIs are."""
TUNED = """
import peft, transformers
base = transformers.AutoModelForCausalLM.from_pretrained('base')
tokenizer = transformers.AutoTokenizer.from_pretrained('base')
peft.get_peft_model(base, peft.LoraConfig(task_type='CAUSAL_LM', r=4)).save_pretrained('my-lora')
tuned = transformers.AutoModelForCausalLM.from_pretrained('base')
tuned.model.norm.weight.data.mul_(1.01)
tuned.save_pretrained('tuned')
tokenizer.save_pretrained('tuned')
"""
"""Makes `tuned` and `my-lora` from `base`."""


def printed(section: str, language: str = "console") -> str:
    """The code blocks of a section in that language."""
    (text,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
    return "\n".join(re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL))


def commands(section: str) -> list[str]:
    """What somebody types. An install that a comment names comes before its line."""
    lines: list[str] = []
    for line in printed(section).splitlines():
        command, _, comment = line.removeprefix("$ ").partition(" #")
        lines += [*re.findall(r"pip install -e '[^']+'", comment), command.strip()]
    return lines


class Clone:
    """A clone with an environment like the one that `make demo` leaves, and the commands that run in it."""

    def __init__(self, folder: Path, **extra: str) -> None:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
        self.folder = folder
        environment = EmptyEnvironment.make(folder / ".venv")
        places = f"{folder / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        held = {"PIP_CONSTRAINT": str(folder / "constraints.txt"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        home = folder.parent / "home"
        home.mkdir()
        self.variables = alone(home, PATH=places, HOME=str(home), NO_COLOR="1", **held, **extra)
        subprocess.run([environment.python, "-m", "pip", "install", "-qe", ".[local]"], **self._here(), check=True)

    def _here(self) -> dict[str, Any]:
        return {"cwd": self.folder, "env": self.variables}

    def run(self, command: str) -> str:
        """One line as printed. A server runs until it is ready, a chat until it was left."""
        print(f"$ {command}", flush=True)
        if re.match(r"chaku (serve|demo)\b", command):
            return self._serve(command)
        if command == "chaku chat":
            return self._chat(command)
        done = subprocess.run(
            ["bash", "-c", command], **self._here(), capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        said = done.stdout + done.stderr
        print(said[-2000:], flush=True)
        assert done.returncode == 0, f"{command}\n{said}"
        return said

    def _serve(self, command: str) -> str:
        log = self.folder.parent / "serve.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"exec {command}"], **self._here(), stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        deadline = time.monotonic() + 300
        try:
            while "ready: http" not in log.read_text():
                assert process.poll() is None and time.monotonic() < deadline, f"{command}\n{log.read_text()}"
                time.sleep(0.1)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)
        print(log.read_text()[-2000:], flush=True)
        return log.read_text()

    def _chat(self, command: str) -> str:
        terminal = Terminal(["bash", "-c", f"exec {command}"], self.variables)
        terminal.expect("›", timeout_s=300)
        terminal.send("/bye\r")
        assert terminal.wait(60) == 0, terminal.text
        return terminal.text


@pytest.fixture
def clone(tmp_path: Path) -> Callable[..., Clone]:
    for port in PORTS:
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                trial.bind(("127.0.0.1", port))
            except OSError:
                pytest.skip(f"port {port}, which the README uses, is taken")
    return lambda **extra: Clone(tmp_path / "chaku", **extra)


@pytest.fixture
def hub(smollm2_path: Path, tmp_path: Path) -> Iterator[dict[str, str]]:
    """A hub that has the README's example; gives the variables that point there."""
    with FileServer() as server:
        fake_hub.publish(server, {"model-Q4_K_M.gguf": smollm2_path.read_bytes()}, repo="org/name")
        yield {"HF_ENDPOINT": server.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_TELEMETRY": "1"}


def test_chat(clone: Callable[..., Clone], tmp_path: Path) -> None:
    here = clone()
    with serving(tmp_path / "other", "llama3.2=scripted:", "--port", "11434"):
        said = {command: here.run(command) for command in commands("Chat") if not command.startswith("source")}
    assert sum("Paris" in text for text in said.values()) == 1
    here.run("pip install -q openai")
    (here.folder / "client.py").write_text(printed("Chat", "python"))
    with serving(tmp_path / "demo", "smollm2-135m", "--port", "8000"):
        assert "The capital of France is Paris." in here.run("python client.py")


def test_serve(
    clone: Callable[..., Clone], hub: dict[str, str], smollm2_path: Path, smollm2_folder: Path, tmp_path: Path
) -> None:
    here = clone(**hub)
    (here.folder / "mistral-7b.Q4_K_M.gguf").symlink_to(smollm2_path)
    shutil.copytree(smollm2_folder, here.folder / "my-finetune")
    shutil.copy(here.folder / "examples" / "serve.yaml", here.folder)
    with serving(tmp_path / "other", "big=scripted:", "--port", "8001"):
        for command in commands("Serve"):
            here.run(command.replace("gpu-box", "127.0.0.1"))


def test_data(clone: Callable[..., Clone]) -> None:
    here = clone()
    (here.folder / "shares").mkdir()
    rows = (here.folder / "examples" / "conversations.jsonl").read_text().splitlines()
    for number, row in enumerate(rows):
        (here.folder / "shares" / f"{number}.json").write_text(f"[{row}]")
    said = {command: here.run(command) for command in commands("Data")}
    assert "10 records in" in said["chaku data build shares/*.json -o built"]
    assert "audit: passed" in said["chaku data audit built"]


def test_train(clone: Callable[..., Clone]) -> None:
    here = clone()
    (here.folder / "recipe.yaml").write_text(printed("Train", "yaml"))
    said = "".join(here.run(command) for command in commands("Train"))
    assert "Kusi" in said


def test_weights(clone: Callable[..., Clone], smollm2_folder: Path) -> None:
    here = clone()
    shutil.copytree(smollm2_folder, here.folder / "base")
    subprocess.run([sys.executable, "-c", TUNED], cwd=here.folder, check=True)
    for command in commands("Weights"):
        here.run(command)


def test_without_the_repository(clone: Callable[..., Clone]) -> None:
    here = clone()
    shutil.rmtree(here.folder / ".venv")
    for command in commands("Without the repository"):
        if command.startswith("pip"):  # somebody elsewhere: an environment that has nothing of the clone
            EmptyEnvironment.make(here.folder / ".venv", sys.executable)
        here.run(command)
