"""An engine that fetches its file when it starts: progress, failure, and an end in the middle."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from chaku.engines import fetched
from chaku.engines.base import State
from chaku.engines.fetched import FetchedEngine, Opener
from chaku.engines.llamacpp.resources import Resources
from chaku.errors import EngineUnavailable
from chaku.models.fetch import converted
from chaku.models.fetch.progress import Progress, silent
from chaku.models.reference import LocalFile
from chaku.settings import ModelConfig
from gguf_files import write_gguf
from waiting import soon


@contextlib.contextmanager
def undrawn(_name: str) -> Iterator[Progress]:
    yield silent


def engine(path: Path, **config: str) -> FetchedEngine:
    opened = Opener(Resources(None), undrawn).engine("m", ModelConfig(source=str(path), **config), LocalFile(path))
    assert isinstance(opened, FetchedEngine)
    return opened


async def test_stopping_ends_a_conversion_whose_child_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAKU_CACHE", str(tmp_path / "cache"))
    script = tmp_path / "silent-converter"
    script.write_text("#!/bin/sh\nexec sleep 600\n")
    script.chmod(0o755)
    monkeypatch.setattr(converted, "sys", SimpleNamespace(executable=str(script)))
    model = engine(write_gguf(tmp_path / "m.gguf"), quant="q8_0")
    starting = asyncio.create_task(model.start())
    me = psutil.Process()
    await soon(lambda: any("sleep" in " ".join(child.cmdline()) for child in me.children()))
    await soon(lambda: model.status().detail == "converting")
    assert model.status().state is State.LOADING
    with pytest.raises(EngineUnavailable, match="converting"):
        _ = model.capabilities
    children = [child for child in me.children() if "sleep" in " ".join(child.cmdline())]
    assert children
    began = time.monotonic()
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    await model.stop()
    assert time.monotonic() - began < fetched._STOP_S
    assert not any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children)
    assert model.status().state is State.STOPPED
    assert not list((tmp_path / "cache").rglob("*.gguf"))


async def test_an_unexpected_error_while_opening_is_raised_by_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planted(*_args: object, **_options: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(fetched, "pull", planted)
    model = engine(tmp_path / "m.gguf")
    with pytest.raises(RuntimeError, match="planted"):
        await model.start()
    await model.stop()
    await model.stop()
