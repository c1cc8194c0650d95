"""What tests of the page share. There is one Chromium for each module of browser tests: a session's would leave its event
loop running under other tests.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from chaku.store.database import open_store
from web.browser import launch
from web.fake_page import FakePage, World


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Tables, and nothing in them: a copy costs less than the migrations do."""
    path = tmp_path_factory.mktemp("database") / "chaku.db"
    open_store(f"sqlite:///{path}").close()
    return path


@pytest.fixture
def database(empty_database: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(empty_database, tmp_path / "chaku.db"))


@pytest.fixture(scope="module")
def browser():
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture
def world():
    return World()


@pytest.fixture
def fake(world):
    with FakePage(world).running() as server:
        yield server
