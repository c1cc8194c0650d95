"""Chromium as the tests drive it, and what it must not do: leave the server, or break the page's policy."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Playwright, expect

ARGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
ARGS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
WIDE = {"width": 1280, "height": 860}
PATIENCE_MS = 20_000
"""How long anything may take on a loaded machine before it counts as not coming."""

expect.set_options(timeout=PATIENCE_MS)


BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
"""The first one that is installed. A page opens in the headless shell in two thirds of the time."""


def launch(playwright: Playwright) -> Browser:
    """Debian's Chromium with a profile of its own; a machine without one skips, CI fails."""
    path = os.environ.get("CHAKU_TEST_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        reason = "no Chromium here: scripts/test-services brings it, or set CHAKU_TEST_CHROMIUM"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return playwright.chromium.launch(executable_path=path, args=ARGS)


@dataclass
class Watch:
    """What a page did that it should not."""

    origin: str
    outside: list[str] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def begin(self, origin: str) -> None:
        """Watch a page of this origin, which has done nothing yet."""
        self.origin = origin
        for noted in (self.outside, self.violations, self.errors):
            noted.clear()

    def assert_clean(self) -> None:
        assert self.outside == []
        assert self.violations == []
        assert self.errors == []


SAY_VIOLATIONS = """addEventListener('securitypolicyviolation',
  e => console.warn('Content Security Policy:', e.violatedDirective, e.blockedURI))"""
LASTING = ("on", "once", "add_init_script", "add_locator_handler", "emulate_media", "expose_binding", "expose_function")
LASTING += ("set_extra_http_headers", "set_viewport_size")
"""What outlives a page's document."""
FORGET = "localStorage.clear(), sessionStorage.clear(), (name = ''), /native code/.test(setTimeout)"


@contextlib.contextmanager
def open_page(browser: Browser, url: str, *, path: str = "/", watch: bool = True, **options: Any) -> Iterator[Page]:
    """A page in a profile of its own. At the end it must have been quiet, unless `watch` is off."""
    context = browser.new_context(viewport=options.pop("viewport", WIDE), **options)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    seen = follow(page, url)
    page.seen = seen  # type: ignore[attr-defined]
    page.goto(url + path)
    try:
        yield page
        if watch:
            seen.assert_clean()
    finally:
        context.close()


def follow(page: Page, origin: str) -> Watch:
    """Note what the page does from now on."""
    seen = Watch(origin)

    def on_request(request: Any) -> None:
        if not request.url.startswith((seen.origin, "data:", "blob:")):
            seen.outside.append(request.url)

    def on_console(message: Any) -> None:
        if "Content Security Policy" in message.text or "TrustedHTML" in message.text:
            seen.violations.append(message.text)

    page.on("request", on_request)
    page.on("console", on_console)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.add_init_script(SAY_VIOLATIONS)
    return seen


class WarmPage:
    """One page that tests take in turns. Its scripts stay compiled, so it opens for half the CPU; nothing else stays.

    A test that listens to the page, adds scripts to it, turns its clock, opens a second one or wants another size
    opens its own with `open_page`.
    """

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._page: Page | None = None

    @contextlib.contextmanager
    def at(self, url: str, path: str = "/") -> Iterator[Page]:
        """The page at this address, as if it were new. At the end it must have been quiet."""
        page, self._page = self._page or self._new(), None
        seen: Watch = page.seen  # type: ignore[attr-defined]
        seen.begin(url)
        try:
            page.goto(url + path)
            page.mouse.move(0, 0)  # where a new page has it
            yield page
            seen.assert_clean()
            self._forget(page, url)
        except BaseException:
            page.context.close()
            raise
        self._page = page

    def _new(self) -> Page:
        context = self._browser.new_context(viewport=WIDE)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.seen = follow(page, "")  # type: ignore[attr-defined]
        for name in LASTING:
            setattr(page, name, _refuse)
        return page

    def _forget(self, page: Page, url: str) -> None:
        page.unroute_all(behavior="ignoreErrors")
        page.goto(f"{url}/assets/-/icon.svg")  # the same origin, without the page's scripts
        assert page.evaluate(FORGET), "a test turned the clock of the page that tests share: use open_page"
        session = page.context.new_cdp_session(page)
        session.send("Storage.clearDataForOrigin", {"origin": url, "storageTypes": "all"})
        session.send("Page.resetNavigationHistory")
        session.detach()
        page.context.clear_cookies()
        assert page.context.pages == [page], "a test opened a second page: use open_page"


def _refuse(*args: Any, **options: Any) -> None:
    raise AssertionError("this would stay for the next test: use open_page")


def ask(page: Page, text: str) -> None:
    """Write a message and send it."""
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def wait_for_answer(page: Page, num: int = 1) -> None:
    """Until `num` answers stand there whole."""
    wait_until(
        page,
        "num => document.querySelectorAll('.message.assistant .facts').length >= num "
        "&& !document.querySelector('[aria-label=\"Stop the answer\"]')",
        num,
    )


def wait_until(page: Page, script: str, arg: Any = None) -> None:
    """Until the script returns something true. Asked 20 times a second: asking at every frame has frames drawn."""
    page.wait_for_function(script, arg=arg, polling=50)


LONG_TASKS = """window.longTasks = []; new PerformanceObserver(list => {
  for (const entry of list.getEntries()) longTasks.push(entry.duration)
}).observe({type: 'longtask', buffered: true})"""
QUIET = """async () => { for (let quiet = 0; quiet < 4; quiet++) {
  const before = longTasks.length;
  await new Promise(resolve => setTimeout(resolve, 100));
  if (longTasks.length > before || document.querySelector('[aria-label="Stop the answer"], [aria-busy]')) quiet = -1;
} return Math.max(0, ...longTasks) }"""


def longest_task_ms(page: Page) -> float:
    """The longest time for which the page has answered nobody since LONG_TASKS began, once it is quiet for 0.4 s."""
    return float(page.evaluate(QUIET))
