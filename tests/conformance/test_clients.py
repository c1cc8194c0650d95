"""Popular clients, each in an environment of its own, talk to the real model as their users make them talk."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from chaku_server import MODEL, ONE_THREAD, SOURCE, ChakuServer, serving
from empty_environment import EmptyEnvironment, alone
from web.node_tools import node, npm

pytestmark = [pytest.mark.prove, pytest.mark.wheel, pytest.mark.model, pytest.mark.timeout(900)]

SCRIPTS = Path(__file__).parent / "clients"
TURNS = {"first", "second", "streamed"}
WHOLE = TURNS | {"parsed", "called", "told"}


@dataclass(frozen=True)
class Client:
    """A script of clients/ with its arguments, the packages that it needs, and what it must report."""

    command: str
    packages: str
    reports: frozenset[str] = frozenset(WHOLE)


BY_CALL = frozenset(WHOLE | {"parsed_by_call"})
CLIENTS = {
    "openai-1": Client("openai_python.py", "openai==1.109.1"),
    "openai-2": Client("openai_python.py", "openai==2.54.0"),
    "litellm": Client("litellm_client.py", "litellm==1.110.2"),
    "langchain": Client("langchain_client.py", "langchain-openai==1.7.4", BY_CALL),
    "llama-index": Client("llama_index_client.py", "llama-index-llms-openai-like==0.8.1"),
    "llm": Client("llm_client.py", "llm==0.36", frozenset(WHOLE - {"called"})),
    "instructor": Client("instructor_client.py", "instructor==1.17.0", frozenset({"parsed", "parsed_by_call"})),
    "pydantic-ai": Client("pydantic_ai_client.py", "pydantic-ai-slim[openai]==2.68.0", BY_CALL),
    "agents-chat": Client("openai_agents_client.py chat", "openai-agents==0.24.0"),
    "agents-responses": Client("openai_agents_client.py responses", "openai-agents==0.24.0"),
    "autogen": Client("autogen_client.py", "autogen-agentchat==0.7.5 autogen-ext[openai]==0.7.5"),
    "vercel-ai": Client("vercel_ai.mjs", "ai@7.0.173 @ai-sdk/openai-compatible@3.0.92 zod@4.6.7"),
}
"""guidellm is not here: it needs torch, and gigabytes of CUDA with it."""


@pytest.fixture(scope="module")
def tool_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChakuServer]:
    """The real model with a template that knows tools, which its own does not."""
    size = ("--slots", "2", "--context", "2048", *ONE_THREAD)
    with serving(tmp_path_factory.mktemp("served"), SOURCE, "--template", "chatml", "--no-ui", *size) as server:
        yield server


def install(client: Client, folder: Path) -> list[str]:
    """Install its packages into that empty folder. Returns the command that runs its script."""
    script, *arguments = client.command.split()
    if script.endswith(".py"):
        environment = EmptyEnvironment.make(folder / "venv")
        environment.install(*client.packages.split(), constrained=False)
        return [str(environment.python), str(SCRIPTS / script), *arguments]
    (folder / script).write_bytes((SCRIPTS / script).read_bytes())  # Node looks for packages beside the script
    quietly = ("--ignore-scripts", "--no-audit", "--no-fund")
    subprocess.run([*npm(), "install", *quietly, *client.packages.split()], cwd=folder, check=True, timeout=240)
    return [*node(), script, *arguments]


def run(command: list[str], folder: Path, server: ChakuServer) -> dict[str, Any]:
    """What the script printed in its last line."""
    quiet = {"LITELLM_LOCAL_MODEL_COST_MAP": "true", "LLM_USER_PATH": str(folder)}
    env = alone(folder, CHAKU_BASE_URL=server.base_url, CHAKU_MODEL=MODEL, **quiet)
    done = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr + server.log[-3000:]
    return dict(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("client", [pytest.param(client, id=name) for name, client in CLIENTS.items()])
def test_the_client_talks_streams_parses_and_calls(client: Client, tool_server: ChakuServer, tmp_path: Path) -> None:
    seen = run(install(client, tmp_path), tmp_path, tool_server)
    assert seen.keys() == client.reports
    if seen.keys() >= TURNS:
        assert "Paris" in seen["first"]
        assert seen["second"] and seen["streamed"] == seen["second"]
        assert seen["told"]
    for name in seen.keys() & {"parsed", "parsed_by_call"}:
        assert seen[name].keys() == {"name", "country"}
    assert "called" not in seen or isinstance(seen["called"]["city"], str)
