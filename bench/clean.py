"""Cleaning speed: pages per second and core of `clean_text`, against markdownify with regexes and html-to-markdown.

Run with `PYTHONPATH=src python bench/clean.py`; the peers come from the `bench` extra (markdownify, beautifulsoup4,
html-to-markdown). All see the same generated pages in one process, taking turns; figures are the median of the
rounds with their range. The markdownify peer does what FastChat's `clean_sharegpt` does, in its order: drop opening
`div` and `span` tags by regex, convert, mend code fences, drop pagers and copy counts, collapse newlines.
"""

from __future__ import annotations

import argparse
import importlib
import random
import re
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from chaku.data.html.clean import clean_text

WORDS = """the of model data answer question and to in for with that this can each value result first step function
    list number text user file use get make when which there following example system process from by as at be or an
    if not will your code run out up so more then also only new way set type name line time string object café
    """.split()  # noqa: SIM905
ODD_WORDS = ("snake_case", "3*4", "a &lt; b", "__init__", "C:\\temp", "[1]", "List&lt;String&gt;")
TOOLBAR = (
    '<pre><div class="bg-black rounded-md mb-4"><div class="flex items-center relative text-gray-200 bg-gray-800 px-4 '
    'py-2 text-xs font-sans justify-between rounded-t-md"><span>python</span><button class="flex ml-auto gap-2"><svg '
    'stroke="currentColor" fill="none" stroke-width="2" viewBox="0 0 24 24" class="h-4 w-4" height="1em" width="1em" '
    'xmlns="http://www.w3.org/2000/svg"><path d="M16 4h2a2 2 0 0 1 2 2v14a2 2 0 0 1-2 2H6a2 2 0 0 1-2-2V6a2 2 0 0 1 '
    '2-2h2"></path><rect x="8" y="2" width="8" height="4" rx="1" ry="1"></rect></svg>Copy code</button></div><div '
    'class="p-4 overflow-y-auto"><code class="!whitespace-pre hljs language-python">'
)
KATEX = (
    '<span class="math math-inline"><span class="katex"><span class="katex-mathml"><math xmlns="http://www.w3.org/1998/'
    'Math/MathML"><semantics><mrow><msup><mi>x</mi><mn>2</mn></msup><mo>+</mo><msub><mi>y</mi><mi>i</mi></msub></mrow>'
    '<annotation encoding="application/x-tex">x^2 + y_i</annotation></semantics></math></span><span class="katex-html" '
    'aria-hidden="true"><span class="base"><span class="strut" style="height:0.8974em;"></span><span class="mord">'
    '<span class="mord mathnormal">x</span><span class="msupsub"><span class="vlist-t"><span class="vlist-r"><span '
    'class="vlist" style="height:0.8141em;"><span style="top:-3.063em;margin-right:0.05em;"><span class="pstrut" '
    'style="height:2.7em;"></span><span class="sizing reset-size6 size3 mtight"><span class="mord mtight">2</span>'
    '</span></span></span></span></span></span></span><span class="mbin">+</span></span></span></span></span>'
)


def sentence(rng: random.Random) -> str:
    words = [rng.choice(WORDS) for _ in range(rng.randint(8, 24))]
    if rng.random() < 0.05:
        words[rng.randrange(len(words))] = rng.choice(ODD_WORDS)
    if rng.random() < 0.3:
        words[rng.randrange(len(words))] = f"<code>{rng.choice(WORDS)}_{rng.choice(WORDS)}()</code>"
    if rng.random() < 0.3:
        words[rng.randrange(len(words))] = f"<strong>{rng.choice(WORDS)} {rng.choice(WORDS)}</strong>"
    return " ".join(words) + "."


def prose(rng: random.Random) -> str:
    return "<p>" + " ".join(sentence(rng) for _ in range(rng.randint(2, 5))) + "</p>"


def bullets(rng: random.Random) -> str:
    tag = rng.choice(["ul", "ol"])
    return f"<{tag}>" + "".join(f"<li>{sentence(rng)}</li>" for _ in range(rng.randint(3, 8))) + f"</{tag}>"


def code(rng: random.Random) -> str:
    lines = []
    for _ in range(rng.randint(5, 30)):
        name, other = rng.choice(WORDS), rng.choice(WORDS)
        lines.append(
            f'    <span class="hljs-keyword">if</span> {name} &lt; '
            f'<span class="hljs-number">{rng.randint(0, 99)}</span>:'
            f'\n\n        {other} = <span class="hljs-built_in">len</span>(<span class="hljs-string">"{name}"</span>)'
        )
    return TOOLBAR + "\n".join(lines) + "\n</code></div></div></pre>"


def table(rng: random.Random) -> str:
    rows = "".join(
        "<tr>" + "".join(f"<td>{rng.choice(WORDS)}</td>" for _ in range(3)) + "</tr>" for _ in range(rng.randint(3, 9))
    )
    return f"<table><thead><tr><th>a</th><th>b</th><th>c</th></tr></thead><tbody>{rows}</tbody></table>"


def math(rng: random.Random) -> str:
    return f"<p>{sentence(rng)} {KATEX} {sentence(rng)}</p>"


MIXES: dict[str, tuple[Callable[[random.Random], str], ...]] = {
    "prose": (prose, prose, bullets),
    "code": (prose, code),
    "mathematics": (prose, math, math),
    "mixed": (prose, prose, prose, bullets, bullets, code, table, math),
}


def pages(count: int, *, mix: str = "mixed", seed: int = 0) -> list[str]:
    """ChatGPT answers as the page held them in 2023: 2 to 10 blocks each."""
    rng = random.Random(seed)
    return [
        '<div class="markdown prose w-full break-words dark:prose-invert dark">'
        + "\n".join(rng.choice(MIXES[mix])(rng) for _ in range(rng.randint(2, 10)))
        + "</div>"
        for _ in range(count)
    ]


def ours(page: str) -> str:
    return clean_text(page).text


_DIV, _SPAN = re.compile("<div.*?>"), re.compile("<span.*?>")
_COPY = re.compile("```\\s*(.*?)(?:Copy code)+(.+?)\\s*?```", re.DOTALL)
_PAGER, _COUNT, _EMPTY = (
    re.compile("\\d+ / \\d+"),
    re.compile("Copy\\d+ chars / \\d+ words"),
    re.compile("```\\s*Copied!"),
)


def markdownify_with_regexes() -> Callable[[str], str]:
    convert: Callable[[str], str] = importlib.import_module("markdownify").markdownify

    def clean(page: str) -> str:
        text = convert(_SPAN.sub("", _DIV.sub("", page)).strip())
        while (mended := _COPY.sub("```\\1\n\\2\n```", text)) != text:
            text = mended
        for pattern in (_PAGER, _COUNT, _EMPTY):
            text = pattern.sub("", text)
        return text.replace("\n\n\n", "\n").strip()

    return clean


def html_to_markdown() -> Callable[[str], str]:
    convert = importlib.import_module("html_to_markdown").convert

    def clean(page: str) -> str:
        return str(convert(page).content)

    return clean


@dataclass(frozen=True)
class Rate:
    """Pages per second on one core: median of the rounds, lowest, highest."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:9,.0f} ({self.low:,.0f} to {self.high:,.0f})"


def measure(cleaners: dict[str, Callable[[str], str]], inputs: Sequence[str], *, rounds: int) -> dict[str, Rate]:
    """Each cleaner over all pages, in turn, `rounds` times; CPU time of this process."""
    rates: dict[str, list[float]] = {name: [] for name in cleaners}
    for _ in range(rounds):
        for name, clean in cleaners.items():
            begin = time.process_time()
            for page in inputs:
                clean(page)
            rates[name].append(len(inputs) / (time.process_time() - begin))
    return {name: Rate(statistics.median(seen), min(seen), max(seen)) for name, seen in rates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pages", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    cleaners = {
        "chaku": ours,
        "markdownify + regexes": markdownify_with_regexes(),
        "html-to-markdown, bare": html_to_markdown(),
    }
    for mix in MIXES:
        inputs = pages(options.pages, mix=mix, seed=options.seed)
        rates = measure(cleaners, inputs, rounds=options.rounds)
        size = statistics.mean(map(len, inputs)) / 1000
        print(
            f"{mix}: {len(inputs)} pages of {size:.1f} kB on average; pages/s/core, median of {options.rounds} (range)"
        )
        for name, rate in rates.items():
            print(f"  {name:24} {rate}   chaku is {rates['chaku'].median / rate.median:.1f} x")


if __name__ == "__main__":
    main()
