"""What goes wrong with `chaku serve` is said in one line, with a way out in another, and an exit code that is not 0."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from chaku_server import MODEL, SMALL, SOURCE, run_chaku, serving
from gguf_files import gguf_bytes, llama_values, tensor
from processes import PATIENCE_S


def failure(home: Path, *arguments: str, **extra: str) -> tuple[int, str, str]:
    """Exit code, cause and fix; nothing else may be said after the settings."""
    done = run_chaku(home, "serve", *arguments, **extra)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    (at,) = [index for index, line in enumerate(lines) if line.startswith("error: ")]
    assert len(lines) == at + 2, done.stderr
    assert lines[at + 1].startswith("  fix: "), done.stderr
    assert done.returncode in (1, 2, 3, 4)
    return done.returncode, lines[at].removeprefix("error: "), lines[at + 1].removeprefix("  fix: ")


def test_a_port_in_use_is_named_with_the_next_one(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, cause, fix = failure(tmp_path, "scripted:", "--port", str(port))
    assert code == 2
    assert cause == f"can't listen on 127.0.0.1:{port}: address already in use"
    assert f"--port {port + 1}" in fix


def test_a_missing_model_file_is_named(tmp_path: Path) -> None:
    code, cause, fix = failure(tmp_path, str(tmp_path / "none.gguf"), "--port", "0")
    assert code == 3
    assert str(tmp_path / "none.gguf") in cause
    assert fix


def test_an_unknown_built_in_name_gets_the_nearest(tmp_path: Path) -> None:
    code, cause, fix = failure(tmp_path, "smolm2-135m", "--port", "0")
    assert code == 3
    assert "smolm2-135m" in cause
    assert "smollm2-135m" in fix


@pytest.mark.parametrize("damage", ["not_gguf", "cut", "empty", "no_weights"])
def test_a_broken_gguf_is_refused_before_or_by_the_engine(tmp_path: Path, damage: str, smollm2_path: Path) -> None:
    with smollm2_path.open("rb") as file:
        start = file.read(4 << 20)
    content = {
        "not_gguf": b"hello, this is not a model" * 100,
        "cut": start,
        "empty": b"",
        "no_weights": gguf_bytes(llama_values(), [tensor(shape=(64, 2000))]),
    }[damage]
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(content)
    code, cause, _ = failure(tmp_path, str(broken), "--port", "0")
    assert code == 3
    assert "broken" in cause


@pytest.mark.model
def test_too_little_memory_says_how_much_is_needed_and_what_would_fit(tmp_path: Path) -> None:
    code, cause, fix = failure(tmp_path, SOURCE, "--context", "1000000", "--slots", "64", "--port", "0")
    assert code == 3
    assert "64 slots of 1,000,000 tokens needs" in cause
    assert "are available" in cause
    assert fix.startswith("--")
    assert fix.endswith("would fit")


def test_a_bad_yaml_key_gets_the_nearest_one(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    config.write_text("models:\n  - source: 'scripted:'\n    queue_limt: 3\n")
    code, cause, fix = failure(tmp_path, "--config", str(config), "--port", "0")
    assert code == 2
    assert "queue_limt" in cause
    assert str(config) in cause
    assert fix == "did you mean queue_limit?"


def test_an_address_others_can_reach_needs_a_key_and_says_how_to_make_one(tmp_path: Path) -> None:
    code, cause, fix = failure(tmp_path, "scripted:", "--host", "0.0.0.0", "--port", "0")
    assert code == 2
    assert "--host 0.0.0.0" in cause
    assert "`chaku keys create NAME`" in fix
    assert run_chaku(tmp_path, "keys", "create", "me").returncode == 0
    with serving(tmp_path, "scripted:", "--host", "0.0.0.0") as server:
        assert server.get("/v1/models")[0] == 401


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    code, cause, fix = failure(tmp_path, "same=scripted:", "same=scripted:", "--port", "0")
    assert code == 2
    assert "'same'" in cause
    assert "NAME=MODEL" in fix


def test_a_model_that_the_upstream_does_not_know_is_named_with_those_it_does(tmp_path: Path) -> None:
    with serving(tmp_path, "a=scripted:", "b=scripted:") as upstream:
        code, cause, fix = failure(tmp_path, f"c={upstream.base_url}", "--port", "0")
    assert code == 2
    assert "'c'" in cause
    assert "a, b" in fix


def test_an_upstream_without_a_name_says_how_to_give_one(tmp_path: Path) -> None:
    code, _, fix = failure(tmp_path, "http://127.0.0.1:9/v1", "--port", "0")
    assert code == 2
    assert "NAME=http://127.0.0.1:9/v1" in fix


def test_an_upstream_key_that_is_not_set_is_named(tmp_path: Path) -> None:
    code, cause, fix = failure(
        tmp_path, "a=http://127.0.0.1:9/v1", "--upstream-key-env", "NO_SUCH_KEY_HERE", "--port", "0"
    )
    assert code == 2
    assert "NO_SUCH_KEY_HERE" in cause
    assert fix


@pytest.mark.model
def test_a_lora_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "missing-lora.gguf"
    code, cause, fix = failure(tmp_path, SOURCE, *SMALL, "--lora", str(missing), "--port", "0")
    assert code in (2, 3)
    assert str(missing) in cause
    assert fix


@pytest.mark.model
def test_a_lora_file_that_is_none_is_refused(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong-lora.gguf"
    wrong.write_bytes(gguf_bytes(llama_values(), [tensor(shape=(64, 2000))]))
    code, cause, _ = failure(tmp_path, SOURCE, *SMALL, "--lora", str(wrong), "--port", "0")
    assert code == 3
    assert "lora" in cause.lower()


def test_no_model_at_all_says_which_to_take(tmp_path: Path) -> None:
    code, cause, fix = failure(tmp_path, "--no-joins", "--port", "0")  # else it is a gateway for workers
    assert (code, cause) == (2, "no model to serve")
    assert MODEL in fix


def test_a_setting_that_an_engine_cannot_honour_is_refused(tmp_path: Path) -> None:
    code, cause, _ = failure(tmp_path, "scripted:", "--threads", "2", "--port", "0")
    assert code == 2
    assert "threads can't be honoured" in cause


def test_a_model_that_cant_be_opened_says_why_and_the_others_are_served(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(gguf_bytes(llama_values(), [tensor(shape=(64, 2000))]))
    with serving(tmp_path / "home", "fine=scripted:", f"broken={broken}", wait=False) as server:
        deadline = time.monotonic() + PATIENCE_S
        while server.get("/health")[1]["models"] != {"fine": "ready", "broken": "failed"}:
            assert time.monotonic() < deadline, server.log
            time.sleep(0.05)
        assert "broken.gguf" in server.get("/v1/models/broken")[1]["detail"]


def test_the_only_model_that_cant_be_opened_ends_the_command_with_the_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(gguf_bytes(llama_values(), [tensor(shape=(64, 2000))]))
    code, cause, _ = failure(tmp_path, str(broken), "--port", "0")
    assert code == 3
    assert "broken" in cause
