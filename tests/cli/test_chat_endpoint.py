"""Where `chaku chat` sends what it is told: a gateway here, or a model that it starts and ends."""

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path

import pytest

from chaku.cli.terminal import endpoint
from chaku.errors import ModelError, NotFound
from processes import PATIENCE_S
from terminal import Terminal


@pytest.fixture
def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
def fake_serve(monkeypatch, tmp_path, free_port):
    """No gateway on the usual port, and a `chaku serve` that writes its pid."""
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    fake, pid_file = Path(__file__).parent.parent / "fake_serve.py", tmp_path / "pid"
    real = endpoint.serve_command
    monkeypatch.setattr(endpoint, "DEFAULT_PORT", free_port)
    monkeypatch.setattr(
        endpoint, "serve_command", lambda *args: [sys.executable, str(fake), str(pid_file), *real(*args)[3:]]
    )
    return pid_file


def is_running(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


async def test_without_an_endpoint_the_built_in_model_is_started_and_ended(fake_serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "must stay here")
    async with endpoint.choose(None, None, None) as chosen:
        assert (chosen.model, chosen.api_key) == ("smollm2-135m", "session-key")
        pid = int(fake_serve.read_text())
        assert is_running(pid)
    assert not is_running(pid)


async def test_a_model_may_be_anything_that_serve_takes(fake_serve):
    async with endpoint.choose(None, None, "some/path.gguf") as chosen:
        assert chosen.model == "some/path.gguf"


async def test_a_child_that_fails_is_quoted(fake_serve):
    with pytest.raises(ModelError, match="there is no model 'missing'") as raised:
        async with endpoint.choose(None, None, "missing"):
            pass
    assert raised.value.fix == "`chaku models` lists them"


async def test_a_gateway_here_is_used_without_the_key_of_the_environment(server, fake_serve, monkeypatch):
    monkeypatch.setattr(endpoint, "DEFAULT_PORT", server.port)
    monkeypatch.setenv("OPENAI_API_KEY", "must stay here")
    async with endpoint.choose(None, None, None) as chosen:
        assert chosen == endpoint.ChatEndpoint(server.base_url, None, None)
    with pytest.raises(NotFound) as raised:
        async with endpoint.choose(None, None, "fakee"):
            pass
    assert raised.value.fix == "did you mean fake?"
    assert not fake_serve.exists()


async def test_a_gateway_here_gets_a_key_of_chaku_from_the_environment(server, fake_serve, monkeypatch):
    monkeypatch.setattr(endpoint, "DEFAULT_PORT", server.port)
    monkeypatch.setenv("OPENAI_API_KEY", "ck-mine")
    async with endpoint.choose(None, None, None) as chosen:
        assert chosen == endpoint.ChatEndpoint(server.base_url, "ck-mine", None)
    async with endpoint.choose(None, "ck-given", None) as chosen:
        assert chosen.api_key == "ck-given"


async def test_a_model_the_gateway_lacks_is_started(server, fake_serve, monkeypatch):
    monkeypatch.setattr(endpoint, "DEFAULT_PORT", server.port)
    async with endpoint.choose(None, None, "smollm2-135m") as chosen:
        assert chosen.model == "smollm2-135m"
        assert chosen.base_url != server.base_url


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_chat_that_is_ended_ends_its_child(number, tmp_path, free_port, env):
    fake = Path(__file__).parent.parent / "fake_serve.py"
    code = f"""if True:
        import sys, chaku.cli.terminal.endpoint as endpoint
        real = endpoint.serve_command
        endpoint.DEFAULT_PORT = {free_port}
        fake = [sys.executable, {str(fake)!r}, {str(tmp_path / "pid")!r}]
        endpoint.serve_command = lambda *args: [*fake, *real(*args)[3:]]
        from chaku.cli.main import main
        main(["chat"])"""
    terminal = Terminal([sys.executable, "-c", code], env)
    try:
        terminal.expect("smollm2-135m at http://127.0.0.1")
        terminal.expect("›")
        pid = int((tmp_path / "pid").read_text())
        assert is_running(pid)
        if number == signal.SIGINT:
            terminal.send("\x03\x03")
        else:
            terminal.process.send_signal(number)
        assert terminal.wait() == (0 if number == signal.SIGINT else 128 + number)
        deadline = time.monotonic() + PATIENCE_S
        while is_running(pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not is_running(pid)
    finally:
        terminal.close()
