"""What tests of the page share: one Chromium for the whole run, and a fake server for each test."""

from __future__ import annotations

from asyncio.events import _get_running_loop, _set_running_loop

import pytest
from playwright.sync_api import sync_playwright

from web.browser import WarmPage, launch
from web.fake_page import FakePage
from web.fake_world import World
from web.page_host import PageHost


@pytest.fixture(scope="session")
def chromium():
    """The browser, and the event loop that Playwright leaves running in this thread until it is stopped."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        loop = _get_running_loop()
        _set_running_loop(None)  # tests with a loop of their own may come in between
        yield browser, loop
        _set_running_loop(loop)
        browser.close()


@pytest.fixture(scope="session")
def warm_page(chromium):
    return WarmPage(chromium[0])


@pytest.fixture
def warm(browser, warm_page):
    """The page that tests take in turns; see `WarmPage`."""
    return warm_page


@pytest.fixture(scope="module")
def browser(chromium):
    """The browser for the tests of one module, which run while Playwright's loop does."""
    browser, loop = chromium
    _set_running_loop(loop)
    yield browser
    _set_running_loop(None)


@pytest.fixture
def world():
    return World()


@pytest.fixture(scope="session")
def page_host():
    with PageHost().running() as host:
        yield host


@pytest.fixture
def fake(world, page_host):
    with FakePage(world).shown_by(page_host) as server:
        yield server
