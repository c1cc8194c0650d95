"""The page that tests take in turns is as new each time."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

LEAVE = """async () => {
  localStorage.setItem('left', 'here');
  sessionStorage.setItem('left', 'here');
  document.cookie = 'left=here';
  window.name = 'left';
  history.pushState(null, '', '/training');
  await caches.open('left');
  await new Promise(done => { indexedDB.open('left', 1).onsuccess = done });
}"""
FIND = """async () => [localStorage.length, sessionStorage.length, document.cookie, window.name, history.length,
  (await caches.keys()).length, (await indexedDB.databases()).length]"""


def test_nothing_of_a_test_stays_for_the_next_one(warm, world, fake):
    chat = world.add_chat("Old", [("user", "one")])
    with warm.at(fake.url) as page:
        expect(page.locator(".rail:hover")).to_be_attached()  # the pointer is in the corner
        new = page.evaluate(FIND)
        page.evaluate(LEAVE)
        page.route("**/api/**", lambda route: route.abort())
        page.mouse.move(600, 400)
        assert page.evaluate(FIND) != new
    with warm.at(fake.url, f"/chat/{chat}") as again:
        assert again == page  # the same one, or nothing is tried
        expect(again.locator(".said")).to_have_text("one")
        expect(again.locator(".rail:hover")).to_be_attached()
        assert again.evaluate(FIND) == new
    assert new[:4] == [0, 0, "", ""]


def test_what_would_stay_is_refused(warm, fake):
    def turns_the_clock(page: Page) -> None:
        page.clock.install()

    def opens_another(page: Page) -> None:
        page.context.new_page()

    def listens(page: Page) -> None:
        page.on("dialog", lambda dialog: dialog.dismiss())

    for use in (turns_the_clock, opens_another, listens):
        with pytest.raises(AssertionError, match="use open_page"), warm.at(fake.url) as page:
            use(page)
