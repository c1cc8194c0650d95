"""What tests of the page share. There is one Chromium for each module of browser tests: a session's would leave its
event loop running under other tests.
"""

from __future__ import annotations

import pytest
from playwright.sync_api import sync_playwright

from web.browser import launch
from web.fake_page import FakePage, World


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
