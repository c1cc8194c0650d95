"""No text holds up the tab: how long the page answers nobody, by the browser's own count of long tasks.

The limit is five times what an idle machine may show (200 ms, which bench/page.py prints).
"""

from __future__ import annotations

import pytest

from web.browser import LONG_TASKS, longest_task_ms, open_page, wait_until
from web.fake_page import FakePage
from web.fake_world import World
from web.hostile_texts import BLOCKING

LIMIT_MS = 1000
GO = "path => { history.pushState(null, '', path); dispatchEvent(new PopStateEvent('popstate')) }"

BEGUN = "name => document.title === `${name} · chaku` && document.querySelector('.answer-body > *')"


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
    page.evaluate(GO, f"/chat/{chat}")
    wait_until(page, BEGUN, name)  # `expect` would look at each of the thousands of blocks
    longest = longest_task_ms(page)
    print(f"{name}: {longest:.0f} ms")
    assert longest <= LIMIT_MS
