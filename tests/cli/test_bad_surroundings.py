"""A full disk, a file limit, a terminal that is not UTF-8: none of them reaches a person as a traceback."""

from __future__ import annotations

import resource
import subprocess
from pathlib import Path

import pytest

from chaku_server import chaku_environment
from fake_openai import FakeServer, answer
from processes import CHAKU

NOT_UTF8 = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
LINE = '{"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello there"}]}\n'


def one_error(stderr: str) -> None:
    assert "Traceback" not in stderr
    assert [line.split()[0] for line in stderr.splitlines() if line.strip()].count("error:") == 1, stderr
    assert "  fix: " in stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["--help"], ["list"], ["paths"], ["completion", "bash"]], ids=" ".join)
def test_output_to_a_full_disk_is_one_error(arguments: list[str], tmp_path: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*CHAKU, *arguments], stdout=full, stderr=subprocess.PIPE, text=True, env=chaku_environment(tmp_path)
        )
    assert done.returncode == 1
    one_error(done.stderr)
    assert "the disk is full" in done.stderr


def limited() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, 1024))


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "identity", "--name", "a", "--org", "b", "-n", "300", "-o", "id.jsonl"],
        ["data", "build", "good.jsonl", "-o", "set", "--processes", "1"],
        ["keys", "create", "me", "--database", "sqlite:///x.db"],
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_a_file_that_can_not_grow_is_one_error(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "good.jsonl").write_text(LINE)
    done = subprocess.run(
        [*CHAKU, *arguments],
        capture_output=True,
        text=True,
        env=chaku_environment(tmp_path, PYTHONDONTWRITEBYTECODE="1"),  # a module cut at the limit would stay
        cwd=tmp_path,
        preexec_fn=limited,
    )
    assert done.returncode in (1, 4)
    one_error(done.stderr)
    assert not (tmp_path / "id.jsonl").exists(), "a file is whole or absent"


def ask(server: FakeServer, home: Path, prompt: str | bytes, **env: str) -> subprocess.CompletedProcess[bytes]:
    command = [*CHAKU, "chat", "--base-url", server.base_url, prompt]
    return subprocess.run(command, input=b"", capture_output=True, env=chaku_environment(home, **env), timeout=60)


@pytest.mark.parametrize("env", [{}, NOT_UTF8], ids=["UTF-8", "C"])
def test_a_prompt_in_utf_8_is_sent_whatever_the_locale(server: FakeServer, tmp_path: Path, env: dict[str, str]) -> None:
    done = ask(server, tmp_path, "h\u00e4llo \u2192".encode(), **env)
    assert done.returncode == 0, done.stderr
    assert server.bodies[0]["messages"][-1]["content"] == "h\u00e4llo \u2192"


@pytest.mark.parametrize("env", [{}, NOT_UTF8], ids=["UTF-8", "C"])
def test_a_prompt_that_is_no_utf_8_is_refused(server: FakeServer, tmp_path: Path, env: dict[str, str]) -> None:
    done = ask(server, tmp_path, b"h\xe4llo", **env)
    assert (done.returncode, server.bodies) == (2, [])
    one_error(done.stderr.decode())
    assert b"it is not UTF-8 text: byte 1 is invalid" in done.stderr


def test_what_a_terminal_that_is_not_utf_8_can_not_show_is_one_error(server: FakeServer, tmp_path: Path) -> None:
    server.script.append(answer("h\u00e9llo \u2192 there"))
    done = ask(server, tmp_path, "hello", **NOT_UTF8)
    assert done.returncode == 2
    one_error(done.stderr.decode())
    assert b"export LC_ALL=C.UTF-8" in done.stderr


def test_chat_with_a_folder_that_holds_no_model_says_so(tmp_path: Path) -> None:
    done = subprocess.run(
        [*CHAKU, "chat", "-m", ".", "hello"], input="", capture_output=True, text=True,
        env=chaku_environment(tmp_path), cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 3
    one_error(done.stderr)
    assert "is a folder without a model" in done.stderr
