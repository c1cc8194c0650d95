"""What the page costs in Chromium: a streamed token, a long code block, opening a long chat, the first load.

    python bench/page.py [--tokens 20000]

A token is about 5 characters of Markdown. Milliseconds are those of the browser's main thread as
Chromium counts them, while the answer streams behind 40 messages. The peer is the usual way, measured in the
same page: the whole answer rendered again for each token. It is quadratic, so it runs for fewer tokens.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from playwright.sync_api import Page, sync_playwright

from web.browser import LONG_TASKS, ask, launch, longest_task_ms, open_page
from web.fake_page import FakePage
from web.fake_world import World
from web.hostile_texts import BLOCKING
from web.test_page_source import first_load_bytes

SECTION = """## Part {n}

Some **bold** words, a little `code`, and a [link](https://example.org/{n}) in a paragraph that goes on for a while so
that it looks like what a model writes, with a second sentence and a third one after it.

- first of a list, with *emphasis*
- second of a list, with more words than the first
- third

```python
def part_{n}(x: int) -> int:
    # a comment
    return sum(i * {n} for i in range(x))
```

| a | b | c |
|---|---|---|
| {n} | 2 | 3 |

"""
LONG_TASK_MS = 50

NAIVE = """async (text) => {
  const assets = [...document.querySelectorAll('link[rel=modulepreload]')].map(l => l.href);
  const {piecesOf} = await import(assets.find(url => url.endsWith('/markdown/markdown.js')));
  const {fragmentOf} = await import(assets.find(url => url.endsWith('/markdown/sanitise.js')));
  const root = document.createElement('div');
  document.querySelector('.column').append(root);
  const start = performance.now();
  for (let end = 5; end <= text.length; end += 5) {
    root.replaceChildren(fragmentOf(piecesOf(text.slice(0, end), {}).map(piece => piece.html).join('')));
    root.getBoundingClientRect();
  }
  const ms = performance.now() - start;
  root.remove();
  return ms;
}"""
WATCH = """() => { window.long = []; new PerformanceObserver(list => {
  for (const entry of list.getEntries()) window.long.push(entry.duration) }).observe({type: 'longtask'}) }"""


def busy_ms(session: Any) -> tuple[float, float]:
    """How long the main thread has worked: on the page itself (script, style, layout), and with painting."""
    metrics = {row["name"]: row["value"] * 1000 for row in session.send("Performance.getMetrics")["metrics"]}
    own = metrics["ScriptDuration"] + metrics["LayoutDuration"] + metrics["RecalcStyleDuration"]
    return float(own), float(metrics["TaskDuration"])


def markdown(num_tokens: int) -> str:
    text = ""
    n = 0
    while len(text) < num_tokens * 5:
        n += 1
        text += SECTION.replace("{n}", str(n))
    return text[: num_tokens * 5]


def history(num_messages: int) -> list[tuple[str, str]]:
    answer = markdown(300)
    return [("user", f"question {i}") if i % 2 == 0 else ("assistant", answer) for i in range(num_messages)]


def stream(page: Page, world: World, text: str, num_chunks: int, delay_s: float) -> tuple[float, float, float, float]:
    """The page's own ms, main-thread ms in all, longest task, ms that tasks took beyond 50."""
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    world.say("Go", text, chunk=max(1, len(text) // num_chunks), delay_s=delay_s)
    page.evaluate(WATCH)
    before = busy_ms(session)
    ask(page, "Go")
    stop = page.get_by_label("Stop the answer")
    stop.wait_for()
    stop.wait_for(state="detached", timeout=150_000)
    page.wait_for_timeout(1000)  # the colouring of the last block too
    after = busy_ms(session)
    long = page.evaluate("window.long")
    return after[0] - before[0], after[1] - before[1], max(long, default=0.0), sum(ms - LONG_TASK_MS for ms in long)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--tokens", type=int, default=20_000)
    num_tokens = parser.parse_args().tokens
    world = World()
    behind = world.add_chat("40 messages", history(40))
    code = world.add_chat("Code", history(40))
    long = world.add_chat("200 messages", history(200))
    with sync_playwright() as playwright, FakePage(world).running() as server:
        browser = launch(playwright)
        with open_page(browser, server.url, path=f"/chat/{behind}") as page:
            page.locator(".facts").last.wait_for(state="attached")
            own, total, longest, blocked = stream(page, world, markdown(num_tokens), num_tokens, 0.001)
            ours = own / num_tokens
            print(f"{num_tokens:,} tokens behind 40 messages: {ours:.3f} ms a token in script, style and layout,")
            print(f"  {total / num_tokens:.3f} with painting (no GPU); limit 1, aim 0.2")
            print(f"  longest task {longest:.0f} ms, blocked for {blocked:.0f} ms in all")
            few = 1000
            naive = page.evaluate(NAIVE, markdown(few)) / few
            print(f"the whole answer anew each time, {few:,} tokens: {naive:.2f} ms a token; ratio {naive / ours:.0f}")
        with open_page(browser, server.url, path=f"/chat/{code}") as page:
            page.locator(".facts").last.wait_for(state="attached")
            lines = (
                "```python\n" + "".join(f"value_{i} = compute({i}, 'text')  # line {i}\n" for i in range(3000)) + "```"
            )
            own, total, longest, blocked = stream(page, world, lines, 6000, 0.001)
            print(f"one code block of 3,000 lines: {total:.0f} ms in all, {own / len(lines) * 5:.3f} ms a token,")
            print(f"  longest task {longest:.0f} ms, blocked for {blocked:.0f} ms")
        opened = []
        for _ in range(5):
            with open_page(browser, server.url, path=f"/chat/{long}") as page:
                page.locator(".facts").last.wait_for(state="attached")
                opened.append(page.evaluate("performance.now()"))
        middle = statistics.median(opened)
        print(f"a chat of 200 messages opens in {middle:.0f} ms, {min(opened):.0f} to {max(opened):.0f}")
        with open_page(browser, server.url) as page:
            page.add_init_script(LONG_TASKS)
            for name, text in BLOCKING.items():
                chat = world.add_chat(name, [("user", "Go"), ("assistant", text)])
                page.goto(f"{server.url}/chat/{chat}")
                page.locator(".facts").wait_for(state="attached")
                print(f"  {longest_task_ms(page):4.0f} ms  {name}")
            print("  is the longest time for which such an answer holds up the tab; limit 200")
        browser.close()
    print(f"first load: {first_load_bytes():,} bytes gzip")


if __name__ == "__main__":
    main()
