"""What tests of several parts share."""

from __future__ import annotations

import gc
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import smollm2
from chaku.store.database import open_store
from fake_openai import FakeServer

# Hypothesis would fail an example that took 200 ms, or was slow to make: on a busy machine any can.
settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")

smollm2.gguf()  # before any test points the cache elsewhere

gc.disable()  # until the tests are collected: it would take a quarter of that time


@pytest.hookimpl(wrapper=True)  # xdist reads the groups in its own hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> Iterator[None]:
    """Sort tests into lanes for `make test`, which runs three processes.

    The tests of one file stay together and share its fixtures. All tests that run the real model share one lane, since
    two engines on two cores slow each other down. That lane is the longest and begins first; then come files of few
    tests, which tend to be slow ones, so that the many quick ones fill the end.

    Raises:
        pytest.UsageError: xdist does not keep the lanes apart (3.8 does not with pytest 9.2).
    """
    lanes = {item: _lane(item) for item in items}
    sizes = Counter(lanes.values())
    for item, lane in lanes.items():
        item.add_marker(pytest.mark.xdist_group(lane))
    has_lanes = getattr(config.option, "loadgroup", False)
    if has_lanes:
        items.sort(key=lambda item: 0 if lanes[item] == _MODEL_LANE else sizes[lanes[item]])
    yield
    if has_lanes and not all("@" in item.nodeid for item in items):
        raise pytest.UsageError("pytest-xdist ignores the lanes: install the versions of constraints.txt")


_MODEL_LANE = "model"


def _lane(item: pytest.Item) -> str:
    return _MODEL_LANE if item.get_closest_marker("model") else item.nodeid.partition("::")[0]


def pytest_collection_finish() -> None:
    """Let the garbage collector begin, and leave out what the modules of all tests have made."""
    gc.freeze()
    gc.enable()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests recorded with `record_property`, and how to run the proofs that were left out."""
    for report in terminalreporter.getreports("passed"):
        for name, figure in report.user_properties:
            terminalreporter.write_line(f"{report.nodeid.split('@')[0]}: {name}: {figure}")
    deselected = terminalreporter.stats.get("deselected", [])
    if num_proofs := sum(item.get_closest_marker("prove") is not None for item in deselected):
        terminalreporter.write_line(f"{num_proofs} long proofs were not selected: `make prove` runs them")


@pytest.fixture
def server():
    with FakeServer().running() as running:
        yield running


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """The real 135M model."""
    return smollm2.gguf()


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The real 135M model as a Hugging Face folder, dequantised by transformers. Don't write into it."""
    pytest.importorskip("transformers")
    return smollm2.folder()


@pytest.fixture(scope="session")
def miniature(smollm2_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model with the 135M model's tokenizer, as a folder: every step is quick, no answer makes sense."""
    pytest.importorskip("transformers")
    from miniatures import save_small_smollm2

    folder = tmp_path_factory.mktemp("miniature")
    save_small_smollm2(folder, smollm2_path)
    return folder


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, and nothing in them: a copy costs less than the migrations do."""
    path = tmp_path_factory.mktemp("database") / "chaku.db"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    """A new SQLite database of the test's own."""
    return Path(shutil.copy(empty_database, tmp_path / "chaku.db"))
