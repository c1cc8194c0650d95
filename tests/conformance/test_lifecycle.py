"""Kill anything: the engine, the gateway, or Ctrl-C with streams under way. Clients are told, and no process stays."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from openai import APIError, APIStatusError, OpenAI

from chaku_server import MODEL, SMALL, SOURCE, ChakuServer, serving
from processes import PATIENCE_S

pytestmark = pytest.mark.model

LONG = {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 400}
ENDLESS = {**LONG, "extra_body": {"ignore_eos": True}}


@pytest.fixture
def small(tmp_path: Path) -> Iterator[ChakuServer]:
    with serving(tmp_path, SOURCE, *SMALL) as server:
        yield server


def openai(server: ChakuServer) -> OpenAI:
    return OpenAI(base_url=server.base_url, api_key="any", max_retries=0, timeout=PATIENCE_S)


def test_a_killed_engine_ends_its_stream_with_an_error_and_the_next_request_is_served_in_seconds(
    small: ChakuServer,
) -> None:
    with openai(small) as client:
        seen = 0
        with pytest.raises(APIError) as caught, client.chat.completions.create(**ENDLESS, stream=True) as stream:
            for chunk in stream:
                assert chunk.choices[0].finish_reason is None
                seen += 1
                if seen == 5:
                    (engine,) = small.engines()
                    engine.kill()
                    killed_at = time.monotonic()
        assert seen >= 5
        assert not isinstance(caught.value, APIStatusError), "the error comes in the stream, whose own status was 200"
        assert caught.value.code in ("engine_error", "engine_unavailable")
        while True:
            try:  # it waits for the engine, and is refused only where that takes over ten seconds
                answer = client.chat.completions.create(**{**LONG, "max_tokens": 4})
                break
            except APIStatusError as error:
                assert error.status_code in (502, 503)
                assert error.status_code == 502 or int(error.response.headers["retry-after"]) >= 1
                assert time.monotonic() - killed_at < PATIENCE_S, small.log
                time.sleep(0.1)
        assert answer.usage is not None
        assert answer.usage.completion_tokens > 0
    (restarted,) = small.engines()
    assert restarted.pid != engine.pid


def test_a_killed_gateway_leaves_no_engine(small: ChakuServer) -> None:
    with openai(small) as client, client.chat.completions.create(**ENDLESS, stream=True) as stream:
        next(iter(stream))
        engines = small.engines()
        assert engines
        small.process.kill()
        small.process.wait()
        _, left = psutil.wait_procs(engines, timeout=PATIENCE_S)
    assert not left


@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_sigterm_are_a_normal_end_that_leaves_no_process(
    small: ChakuServer, signal_number: signal.Signals
) -> None:
    engines = small.engines()
    began = time.monotonic()
    assert small.end(signal_number) == 0
    assert time.monotonic() - began < 5
    _, left = psutil.wait_procs(engines, timeout=PATIENCE_S)
    assert not left
    assert "Traceback" not in small.log


def test_ctrl_c_while_streams_run_ends_them_within_the_grace_time(small: ChakuServer) -> None:
    ends: list[object] = []

    def stream_until_it_ends(started: threading.Event) -> None:
        with openai(small) as client:
            try:
                with client.chat.completions.create(**{**ENDLESS, "max_tokens": 450}, stream=True) as stream:
                    for chunk in stream:
                        started.set()
                        if chunk.choices and chunk.choices[0].finish_reason:
                            ends.append(chunk.choices[0].finish_reason)
            except APIError as error:
                ends.append(error.message)

    begun = [threading.Event() for _ in range(2)]
    threads = [threading.Thread(target=stream_until_it_ends, args=(started,)) for started in begun]
    for thread in threads:
        thread.start()
    assert all(started.wait(PATIENCE_S) for started in begun)
    engines = small.engines()
    began = time.monotonic()
    assert small.end(signal.SIGINT) == 0
    assert time.monotonic() - began < 10
    for thread in threads:
        thread.join(PATIENCE_S)
    assert ends == ["the gateway is stopping"] * 2
    _, left = psutil.wait_procs(engines, timeout=PATIENCE_S)
    assert not left
    assert "Traceback" not in small.log


def test_a_second_ctrl_c_does_not_wait_for_streams(small: ChakuServer) -> None:
    with openai(small) as client, client.chat.completions.create(**ENDLESS, stream=True) as stream:
        next(iter(stream))
        engines = small.engines()
        began = time.monotonic()
        small.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        small.end(signal.SIGINT)
        assert time.monotonic() - began < 4
    _, left = psutil.wait_procs(engines, timeout=PATIENCE_S)
    assert not left


def test_a_client_that_hangs_up_frees_its_slot_within_a_second(small: ChakuServer) -> None:
    with openai(small) as client:
        with client.chat.completions.create(**ENDLESS, stream=True) as stream:
            next(iter(stream))
            assert running(small) == 1
        assert _soon(lambda: running(small) == 0, within_s=1)


def test_an_idle_engine_is_unloaded_and_comes_back_with_the_next_request(tmp_path: Path) -> None:
    with serving(tmp_path, SOURCE, *SMALL, "--idle-unload", "0.5") as server, openai(server) as client:
        assert _soon(lambda: not server.engines(), within_s=PATIENCE_S)
        assert server.get("/health")[1]["models"] == {MODEL: "unloaded"}
        assert client.chat.completions.create(**{**LONG, "max_tokens": 4}).choices
        assert len(server.engines()) == 1


def running(server: ChakuServer) -> int:
    found: int = server.get(f"/v1/models/{MODEL}")[1]["running"]
    return found


def _soon(claim: Callable[[], bool], within_s: float) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        if claim():
            return True
        time.sleep(0.02)
    return False
