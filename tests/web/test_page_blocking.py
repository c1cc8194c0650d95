"""No text holds up the tab: how long the page answers nobody, by the browser's own count of long tasks.

The limit is five times what an idle machine may show (200 ms, which bench/page.py prints).
"""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

from web.browser import LONG_TASKS, longest_task_ms, open_page
from web.fake_page import FakePage, World
from web.hostile_texts import BLOCKING

LIMIT_MS = 1000
GO = "path => { history.pushState(null, '', path); dispatchEvent(new PopStateEvent('popstate')) }"


@pytest.fixture(scope="module")
def page(browser):
    world = World()
    with FakePage(world).running() as fake, open_page(browser, fake.url) as page:
        page.add_init_script(LONG_TASKS)
        page.reload()
        longest_task_ms(page)
        page.world = world
        yield page


@pytest.mark.parametrize("name", BLOCKING)
def test_no_answer_that_is_read_holds_up_the_tab(page, name):
    chat = page.world.add_chat(name, [("user", "Go"), ("assistant", BLOCKING[name])])
    page.evaluate("longTasks.length = 0")
    page.evaluate(
        "path => { history.pushState(null, '', path); dispatchEvent(new PopStateEvent('popstate')) }", f"/chat/{chat}"
    )
    expect(page.locator(".answer-body > *").first).to_be_attached()
    longest = longest_task_ms(page)
    print(f"{name}: {longest:.0f} ms")
    assert longest <= LIMIT_MS
