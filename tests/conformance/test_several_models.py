"""Several models on one port, a YAML file, and a gateway in front of a gateway."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from openai import APIStatusError, AuthenticationError, OpenAI, RateLimitError

from chaku_server import SMALL, SOURCE, ChakuServer, run_chaku, serving
from fake_hub import publish
from file_server import FileServer
from processes import PATIENCE_S

HELLO = [{"role": "user", "content": "hello"}]
FRANCE = [
    {"role": "system", "content": "You are a helpful assistant."},
    {"role": "user", "content": "What is the capital of France?"},
]


def openai(server: ChakuServer, key: str = "any") -> OpenAI:
    return OpenAI(base_url=server.base_url, api_key=key, max_retries=0, timeout=60)


@pytest.mark.model
def test_three_models_of_two_kinds_answer_on_one_port_from_a_yaml_file(tmp_path: Path) -> None:
    config = tmp_path / "serve.yaml"
    source = SOURCE.rpartition("=")[2]
    small = {"source": source, "context": 512, "slots": 2, "threads": 1, "embeddings": False}
    script = tmp_path / "canned.yaml"
    script.write_text("replies: [{text: 'canned: {prompt}'}]\n")
    models = [{**small, "name": "big"}, {**small, "name": "fast", "slots": 1}, {"source": f"scripted:{script}"}]
    config.write_text(json.dumps({"models": models, "log_level": "WARNING"}))  # JSON is YAML
    with serving(tmp_path, "--config", str(config)) as server, openai(server) as client:
        rows = {row["id"]: row for row in server.get("/v1/models")[1]["data"]}
        assert {name: (row["slots"], row["context_tokens"]) for name, row in rows.items()} == {
            "big": (2, 512),
            "fast": (1, 512),
            "canned": (32, 8192),
        }
        assert len(server.engines()) == 2
        for name, wanted in (("big", "Paris"), ("fast", "Paris"), ("canned", "canned: What is")):
            answer = client.chat.completions.create(model=name, messages=FRANCE, temperature=0)
            assert wanted in (answer.choices[0].message.content or "")
            assert answer.model == name
        with pytest.raises(APIStatusError, match="does not serve"):
            client.embeddings.create(model="fast", input="x")
        assert "INFO" not in server.log


@pytest.mark.model
def test_a_model_of_a_hub_is_fetched_and_answers(tmp_path: Path, smollm2_path: Path) -> None:
    with FileServer() as hub:
        publish(hub, {"README.md": b"#", "smol-Q4_1.gguf": smollm2_path.read_bytes()}, repo="org/smol-GGUF")
        places = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "HF_HUB_DISABLE_TELEMETRY": "1"}
        with serving(tmp_path, "hf:org/smol-GGUF", *SMALL, **places) as server, openai(server) as client:
            answer = client.chat.completions.create(model="smol-GGUF", messages=FRANCE, temperature=0)
    assert "Paris" in (answer.choices[0].message.content or "")


@pytest.fixture(scope="module")
def inner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ChakuServer, str, Path]]:
    """A gateway that asks for a key, and the key."""
    home = tmp_path_factory.mktemp("inner")
    made = run_chaku(home, "keys", "create", "outer")
    assert made.returncode == 0, made.stderr
    script = home / "deep.yaml"
    script.write_text(
        "replies:\n"
        "- {match: die, text: one two three four five, fault: break_off}\n"
        "- {match: wait, text: one two, fault: hang, fault_after_tokens: 1}\n"
        "- {text: 'You said: {prompt}'}\n"
    )
    with serving(home, f"scripted:{script}", "one=scripted:") as server:
        yield server, made.stdout.strip(), home


def test_a_key_is_needed_and_found_and_a_revoked_one_is_refused(inner: tuple[ChakuServer, str, Path]) -> None:
    server, key, home = inner
    with openai(server, "ck-wrong") as client, pytest.raises(AuthenticationError) as caught:
        client.chat.completions.create(model="one", messages=HELLO)
    assert (caught.value.code, caught.value.type) == ("invalid_api_key", "invalid_request_error")
    with openai(server, key) as client:
        assert client.chat.completions.create(model="one", messages=HELLO).choices
    second = run_chaku(home, "keys", "create", "second").stdout.strip()
    with openai(server, second) as client:
        assert soon(lambda: lets_in(client))
        assert run_chaku(home, "keys", "revoke", "second").returncode == 0
        assert soon(lambda: not lets_in(client))


def test_a_gateway_in_front_of_a_gateway_renames_streamed_and_not(
    inner: tuple[ChakuServer, str, Path], tmp_path: Path
) -> None:
    server, key, _ = inner
    flags = ("--upstream-key-env", "INNER_KEY", "--upstream-model", "deep")
    with serving(tmp_path, f"mine={server.base_url}", *flags, INNER_KEY=key) as outer, openai(outer) as client:
        assert [model.id for model in client.models.list()] == ["mine"]
        whole = client.chat.completions.create(model="mine", messages=HELLO)
        assert (whole.model, whole.choices[0].message.content) == ("mine", "You said: hello")
        with client.chat.completions.create(
            model="mine", messages=HELLO, stream=True, stream_options={"include_usage": True}
        ) as stream:
            chunks = list(stream)
        assert {chunk.model for chunk in chunks} == {"mine"}
        assert chunks[-1].usage is not None
        assert chunks[-1].usage.completion_tokens == 3
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "You said: hello"
        with pytest.raises(APIStatusError) as refused:
            client.chat.completions.create(model="mine", messages=HELLO, seed=5)
        assert (refused.value.status_code, refused.value.param) == (400, "seed")
        with pytest.raises(Exception, match="died in mid-answer"):
            list(
                client.chat.completions.create(model="mine", messages=[{"role": "user", "content": "die"}], stream=True)
            )


def test_a_wrong_key_of_ours_at_the_upstream_is_not_the_callers_fault(
    inner: tuple[ChakuServer, str, Path], tmp_path: Path
) -> None:
    server, _, _ = inner
    flags = ("--upstream-key-env", "INNER_KEY", "--upstream-model", "deep")
    with serving(tmp_path, f"mine={server.base_url}", *flags, wait=False, INNER_KEY="ck-wrong") as outer:
        with openai(outer) as client, pytest.raises(APIStatusError) as caught:
            client.chat.completions.create(model="mine", messages=HELLO)
        assert caught.value.status_code in (502, 503)
        assert "ck-wrong" not in outer.log


def test_a_full_queue_is_the_clients_rate_limit_error_with_a_time_to_come_back(
    tmp_path: Path,
) -> None:
    script = tmp_path / "slow.yaml"
    script.write_text("slots: 1\nreplies: [{text: one two, fault: hang, fault_after_tokens: 1}]\n")
    with serving(tmp_path, f"scripted:{script}", "--queue-limit", "0") as server, openai(server) as client:
        with client.chat.completions.create(model="slow", messages=HELLO, stream=True) as stream:
            next(iter(stream))
            with pytest.raises(RateLimitError) as caught:
                client.chat.completions.create(model="slow", messages=HELLO)
        assert caught.value.code == "queue_full"
        assert int(caught.value.response.headers["retry-after"]) >= 1


def lets_in(client: OpenAI) -> bool:
    try:
        client.models.list()
    except AuthenticationError:
        return False
    return True


def soon(claim: Callable[[], bool], within_s: float = PATIENCE_S) -> bool:
    deadline = time.monotonic() + within_s
    while not claim():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
