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

    def assert_clean(self) -> None:
        assert self.outside == []
        assert self.violations == []
        assert self.errors == []


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
        if not request.url.startswith((origin, "data:", "blob:")):
            seen.outside.append(request.url)

    def on_console(message: Any) -> None:
        if "Content Security Policy" in message.text or "TrustedHTML" in message.text:
            seen.violations.append(message.text)

    page.on("request", on_request)
    page.on("console", on_console)
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.expose_function("noteViolation", lambda what: seen.violations.append(what))
    page.add_init_script(
        "addEventListener('securitypolicyviolation', e => noteViolation(e.violatedDirective + ' ' + e.blockedURI))"
    )
    return seen


def ask(page: Page, text: str) -> None:
    """Write a message and send it."""
    page.get_by_label("Message", exact=True).fill(text)
    page.keyboard.press("Enter")


def wait_for_answer(page: Page, num: int = 1) -> None:
    """Until `num` answers stand there whole."""
    page.wait_for_function(
        "num => document.querySelectorAll('.message.assistant .facts').length >= num "
        "&& !document.querySelector('[aria-label=\"Stop the answer\"]')",
        arg=num,
    )


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
