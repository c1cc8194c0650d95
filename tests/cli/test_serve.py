"""`chaku serve` as a process: what it tells whoever started it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from annotated_types import Ge, Gt, Le
from click.testing import CliRunner

from chaku import packages
from chaku.cli import serve as serve_module
from chaku.cli.serve_options import FLAGS
from chaku.config import Frozen, is_number, load
from chaku.errors import ConfigError, UsageError
from chaku.policies import GuestPolicy, ImageLimits, Limits, ModerationPolicy, Price, Retention
from chaku.serve import server
from chaku.settings import ModelConfig, ServeConfig
from chaku_server import chaku_environment, run_chaku, serving
from processes import PATIENCE_S


def test_whoever_started_it_may_use_it_where_the_store_has_keys(tmp_path: Path) -> None:
    assert run_chaku(tmp_path, "keys", "create", "me").returncode == 0
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "chaku", "serve", "scripted:", "--port", "0", "--no-ui"]
    process = subprocess.Popen(
        [*command, "--ready-fd", str(writing)],
        env=chaku_environment(tmp_path),
        pass_fds=(writing,),
        stderr=subprocess.DEVNULL,
    )
    os.close(writing)
    try:
        with os.fdopen(reading) as ready:
            told = json.loads(ready.readline())
        request = urllib.request.Request(
            f"{told['url']}/v1/models", headers={"Authorization": f"Bearer {told['api_key']}"}
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            assert [row["id"] for row in json.load(answer)["data"]] == ["scripted"]
    finally:
        process.terminate()
        assert process.wait(PATIENCE_S) == 0


def test_the_settings_show_the_database_in_use_without_its_password_and_every_models_settings(tmp_path: Path) -> None:
    url = "postgresql://me:hunter2@127.0.0.1:1/chaku?password=hunter3"
    done = run_chaku(tmp_path, "serve", "m=scripted:", "--slots", "2", "--port", "0", CHAKU_DATABASE=url)
    assert done.returncode == 4
    assert "hunter" not in done.stderr
    assert "database = postgresql://me:***@127.0.0.1:1/chaku" in done.stderr
    assert "(CHAKU_DATABASE)" in done.stderr
    assert "    slots = 2  (flag)" in done.stderr
    assert "queue_limit" not in done.stderr and "log_level" not in done.stderr
    everything = run_chaku(
        tmp_path, "serve", "m=scripted:", "--port", "0", "--show-settings", CHAKU_DATABASE=url
    ).stderr
    assert "    queue_limit = 64  (default)" in everything and "log_level = INFO  (default)" in everything
    assert "hunter" not in everything


def test_the_settings_name_the_contestants_and_show_settings_tells_all_of_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    flags = {"contestants": [{"name": "steady", "model": "m"}, {"name": "pirate", "model": "m", "system": "Arr."}]}
    loaded = load(ServeConfig, None, flags)
    serve_module._print_settings(loaded, [], everything=False)
    assert "  contestants = [steady, pirate]  (flag)\n" in capsys.readouterr().err
    serve_module._print_settings(loaded, [], everything=True)
    assert "{name: pirate, model: m, system: Arr., sampling: {}}]  (flag)\n" in capsys.readouterr().err


def test_every_setting_of_a_file_has_a_flag() -> None:
    flags = {parameter.name for parameter in serve_module.serve.params}
    per_model = ModelConfig.model_fields.keys() - {"source", "name"}  # NAME=MODEL says both
    assert flags >= ServeConfig.model_fields.keys() | per_model


def test_what_was_typed_is_printed_as_yaml_that_means_the_same(tmp_path: Path) -> None:
    typed = [
        "fast=scripted:",
        "http://127.0.0.1:9/v1",
        "--slots",
        "2",
        "--port",
        "0",
        "--no-ui",
        "--extension",
        "top_k",
    ]
    typed += ["--upstream-model", "gpt", "--allowed-host", "box.lan", "--log-level", "ERROR"]
    printed = CliRunner().invoke(serve_module.serve, [*typed, "--print-config"]).stdout
    (tmp_path / "serve.yaml").write_text(printed)
    again = CliRunner().invoke(serve_module.serve, ["--config", str(tmp_path / "serve.yaml"), "--print-config"]).stdout
    assert printed == again
    first = yaml.safe_load(printed)["models"][0]
    assert first == {
        "source": "scripted:",
        "name": "fast",
        "slots": 2,
        "extensions": ["top_k"],
        "upstream_model": "gpt",
    }
    assert "host" not in yaml.safe_load(printed), "what was not typed is left out"


def test_a_mistake_is_said_before_any_setting(tmp_path: Path) -> None:
    done = run_chaku(tmp_path, "serve", "m=scripted:", "--threads", "2", "--port", "0")
    assert done.stderr.startswith("error: ")


def test_the_last_line_of_a_start_says_that_it_is_ready_and_what_to_try(tmp_path: Path) -> None:
    with serving(tmp_path, "scripted:") as running:
        deadline = time.monotonic() + PATIENCE_S
        while "ready: " not in running.log:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        before, last = running.log.splitlines()[-2:]
        assert before == "in another terminal, try: chaku chat"
        assert last == f"ready: {running.url} (Ctrl-C stops it)"


def test_a_missing_extra_is_said_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = packages.version
    monkeypatch.setattr(packages, "version", lambda name: None if name == "xllamacpp" else real(name))
    monkeypatch.setenv("CHAKU_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UsageError, match="xllamacpp is not installed"):
        serve_module.run(("smollm2-135m",), None)
    assert not (tmp_path / "cache").exists()


def test_a_port_in_use_is_said_before_a_model_is_fetched(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        source = "pypi:no-such-package==1.0"
        done = run_chaku(tmp_path, "serve", source, "--port", str(port), CHAKU_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 2
    assert f"can't listen on 127.0.0.1:{port}" in done.stderr


def test_each_reason_not_to_listen_has_its_own_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError) as caught:
        server.bind("203.0.113.7", 0)  # TEST-NET-3: nobody's
    assert "--host" in str(caught.value.fix)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        monkeypatch.setattr(server, "MAX_PORT", port)
        with pytest.raises(UsageError) as caught:
            server.bind("127.0.0.1", port)
    assert caught.value.fix == "take --port 0 for a free one"


@pytest.mark.parametrize(
    ("flags", "message", "fix"),
    [
        ({"port": 70000}, "--port is 70000, at most 65535 is allowed", "write it such as --port 8000"),
        (
            {"models": ({"source": "x", "context": 5},)},
            "--context is 5, at least 64 is needed",
            "write it such as --context 4096",
        ),
        (
            {"models": ({"source": "x", "deadline_s": 0.0},)},
            "--deadline is 0.0, more than 0 is needed",
            "write it such as --deadline 600",
        ),
        (
            {"prices": ("m=-1/2",)},
            "--price is '-1', at least 0 is needed",
            "write it such as --price my-model=0.15/0.6",
        ),
        (
            {"image_limits": ("count=1.5",)},
            "--image-limit is 1.5, a whole number is needed",
            "write it such as --image-limit megabytes=10",
        ),
        (
            {"retention_days": ("chats=0",)},
            "--retention-days is '0', at least 1 is needed",
            "write it such as --retention-days chats=90",
        ),
        (
            {"contestants": ("",)},
            "--contestant is '', printable characters are needed, none of them a line break, and no space first",
            "write it such as --contestant terse=smollm2-135m",
        ),
    ],
)
def test_a_flag_that_is_wrong_is_named_with_its_limit_and_an_example(
    flags: dict[str, object], message: str, fix: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(ServeConfig, flags=flags, flag_names=FLAGS)
    assert (caught.value.message, caught.value.fix) == (message, fix)


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("models: smollm2", "models is 'smollm2', a list is needed", "models: [{source: smollm2-135m}]"),
        ("models: [a]", "models.0 is 'a', a mapping of keys to values is needed", "models: [{source: smollm2-135m}]"),
        ("models: [{name: a}]", "models.0.source is missing", "source: smollm2-135m"),
        ("models: [{source: a, context: 5}]", "models.0.context is 5, at least 64 is needed", "context: 4096"),
        ("port: true-ish", "port is 'true-ish', a whole number is needed", "port: 8000"),
        ('models: [{source: a, name: "a\\r\\nX"}]', "models.0.name is 'a\\r\\nX', printable", "name: my-model"),
        ('models: [{source: a, name: ""}]', "models.0.name is '', printable", "name: my-model"),
    ],
)
def test_a_value_in_a_file_that_is_wrong_is_named_with_its_limit_and_an_example(
    tmp_path: Path, text: str, message: str, fix: str
) -> None:
    file = tmp_path / "serve.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(ServeConfig, file)
    assert caught.value.message.startswith(f"{file}: {message}")
    assert caught.value.fix == f"write it such as {fix}"


@pytest.mark.parametrize(
    ("flags", "error"),
    [
        (["--no-ui", "--guests"], "guests is .*no effect where ui is false"),
        (["--no-ui", "--contestant", "m"], "contestants is .*no effect where ui is false"),
        (["--no-ui", "--arena-turns", "3"], "arena_turns is 3, .*no effect where ui is false"),
        (["--no-keep", "--batch-parallel", "3"], "batch_parallel is 3, .*no effect where keep is false"),
        (["--no-keep", "--retention-days", "chats=5"], "retention_days.chats is 5, .*no effect where keep is false"),
        (["--moderation", "{rules: true, input: false, output: false}"], "judges nothing"),
        (["--moderation", "{rules: true, threshold: 0.5}"], "threshold of a moderation policy .*without url"),
        (["--no-ui", "--arena-turns", "10", "--no-keep", "--batch-parallel", "0", "--retention-days", "usage=5"], None),
    ],
)
def test_a_flag_that_another_one_leaves_without_effect_is_refused(flags: list[str], error: str | None) -> None:
    result = CliRunner().invoke(serve_module.serve, ["m=scripted:", *flags, "--print-config"])
    if error is None:
        assert result.exception is None
    else:
        assert isinstance(result.exception, ConfigError) and re.search(error, result.exception.message)
        assert result.exception.fix


def test_a_model_is_not_its_own_fallback() -> None:
    result = CliRunner().invoke(serve_module.serve, ["m=scripted:", "--fallback", "m", "--print-config"])
    assert isinstance(result.exception, UsageError) and result.exception.message == "m is its own fallback"


PLACES: dict[str, tuple[type[Frozen], str]] = {
    "": (ServeConfig, "{%s}"),
    "models.0.": (ModelConfig, "{models: [{source: 'scripted:', %s}]}"),
    "guests.": (GuestPolicy, "{guests: {%s}}"),
    "guests.limits.": (Limits, "{guests: {limits: {%s}}}"),
    "retention_days.": (Retention, "{retention_days: {%s}}"),
    "image_limits.": (ImageLimits, "{image_limits: {%s}}"),
    "moderation.": (ModerationPolicy, "{moderation: {url: 'https://a.example/v1', %s}}"),
    "prices.m.": (Price, "{prices: {m: {prompt: 1, completion: 1, %s}}}"),
}
"""The mappings of a file: what begins their keys in an error, their kind, and a file with one of them."""
NUMBERS = [
    (place, key) for place, (kind, _) in PLACES.items() for key, field in kind.model_fields.items() if is_number(field)
]


@pytest.mark.parametrize(("place", "key"), NUMBERS, ids=str)
def test_a_number_of_a_file_is_within_two_limits_or_one_error(tmp_path: Path, place: str, key: str) -> None:
    file = tmp_path / "serve.yaml"
    kind, form = PLACES[place]

    def loaded(value: object) -> ServeConfig:
        file.write_text(form % f"{key}: {value}")
        return load(ServeConfig, file).config

    limits = {type(limit): next(iter(asdict(limit).values())) for limit in kind.model_fields[key].metadata}
    for limit in limits.values():
        if limit != limits.get(Gt):
            loaded(limit)
    least, most = limits.get(Ge, limits.get(Gt)), limits[Le]
    for value, limit in ((least - 1, least), (-(10**30), least), (most + 1, most), (10**30, most)):
        with pytest.raises(ConfigError) as caught:
            loaded(value)
        assert caught.value.message.startswith(f"{file}: {place}{key} is {value}, ")
        assert f" {str(limit).removesuffix('.0')} is " in caught.value.message and caught.value.fix
    for value in ("true", "false", ".nan", ".inf", "-.inf", "1e999", "٣", "[]", "{}", "''"):
        with pytest.raises(ConfigError, match=r"number(, not true or false)? is needed") as caught:
            loaded(value)
        assert caught.value.message.startswith(f"{file}: {place}{key} is ") and caught.value.fix


def test_chat_talks_to_the_server_it_starts_where_the_store_has_keys(tmp_path: Path) -> None:
    assert run_chaku(tmp_path, "keys", "create", "me").returncode == 0
    done = run_chaku(tmp_path, "chat", "-m", "scripted:", "hello there")
    assert (done.returncode, done.stdout) == (0, "You said: hello there\n"), done.stderr
