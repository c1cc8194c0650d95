"""How fast the data pipeline is: ShareGPT-like conversations in page HTML to packed rows, and the memory it takes.

    python bench/data.py --conversations 5000 --tokenizer PATH [--processes 2] [--keep DIR]

The conversations are made here, the same for the same number: 1 to 20 rounds, about 2,900 tokens on average (Vicuna's
125,000 conversations held 370 million), with code blocks, lists, tables and formulas as ChatGPT's page had them.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from chaku.data.build import build
from chaku.data.ledger import StageCounts
from chaku.data.recipe import DataConfig
from chaku.data.watcher import Silent

_SYLLABLES = [
    "ka",
    "re",
    "mi",
    "to",
    "sun",
    "del",
    "pra",
    "vo",
    "lin",
    "est",
    "qua",
    "ber",
    "no",
    "ti",
    "gar",
    "mon",
    "el",
    "fi",
    "sta",
    "ru",
    "ven",
    "dor",
    "al",
    "pe",
]
_COMMON = [
    "the",
    "a",
    "of",
    "to",
    "and",
    "in",
    "that",
    "is",
    "for",
    "it",
    "with",
    "as",
    "on",
    "be",
    "this",
    "by",
    "or",
    "are",
    "from",
    "can",
    "you",
    "we",
    "not",
    "which",
]


class Author:
    """Writes the conversations, out of a vocabulary of its own."""

    def __init__(self, seed: int = 7) -> None:
        self.random = random.Random(seed)
        made = {"".join(self.random.choices(_SYLLABLES, k=self.random.choice((1, 1, 2, 2)))) for _ in range(2000)}
        self.words = sorted(made)
        self.sentences = [self._sentence() for _ in range(40_000)]

    def _sentence(self) -> str:
        size = self.random.randint(5, 24)
        words = [self.random.choice(_COMMON if self.random.random() < 0.45 else self.words) for _ in range(size)]
        return " ".join(words).capitalize() + self.random.choice(("." * 5) + "?!")

    def text(self, sentences: int) -> str:
        return " ".join(self.random.choices(self.sentences, k=sentences))

    def code(self) -> str:
        names = self.random.sample(self.words, 4)
        lines = [f"def {names[0]}({names[1]}, {names[2]}=None):"]
        for _ in range(self.random.randint(3, 18)):
            name, value = self.random.choice(names), self.random.randint(0, 999)
            lines.append(f"    {name} = {names[3]}[{value}] if {names[1]} &lt; {value} else &quot;{name}_{value}&quot;")
        body = "\n".join([*lines, f"    return {names[3]}", ""])
        return (
            '<pre><div class="bg-black rounded-md mb-4"><div class="flex items-center relative text-gray-200"><span>'
            'python</span><button class="flex ml-auto gap-2">Copy code</button></div><div class="p-4 overflow-y-auto">'
            f'<code class="!whitespace-pre hljs language-python">{body}</code></div></div></pre>'
        )

    def block(self) -> str:
        kind = self.random.random()
        if kind < 0.62:
            return f"<p>{self.text(self.random.randint(1, 5))}</p>"
        if kind < 0.74:
            return self.code()
        if kind < 0.9:
            tag = self.random.choice(("ol", "ul"))
            items = "".join(
                f"<li><p><strong>{self.random.choice(self.words)}</strong>: {self.text(1)}</p></li>"
                for _ in range(self.random.randint(3, 8))
            )
            return f"<{tag}>{items}</{tag}>"
        if kind < 0.96:
            rows = "".join(f"<tr><td>{self.text(1)}</td><td>{self.random.randint(0, 99)}</td></tr>" for _ in range(4))
            return f"<table><thead><tr><th>a</th><th>b</th></tr></thead><tbody>{rows}</tbody></table>"
        return (
            '<p>So <span class="math math-inline"><span class="katex"><span class="katex-mathml"><math><semantics>'
            '<mrow><mi>x</mi></mrow><annotation encoding="application/x-tex">x^2_i</annotation></semantics></math>'
            '</span><span class="katex-html" aria-hidden="true"><span>x2i</span></span></span></span>. '
            f"{self.text(1)}</p>"
        )

    def answer(self) -> str:
        blocks = max(1, int(self.random.lognormvariate(1.35, 0.6)))
        body = "".join(self.block() for _ in range(blocks))
        return f'<div class="markdown prose w-full break-words dark:prose-invert light">{body}</div>'

    def conversation(self, number: int) -> dict[str, object]:
        rounds = min(20, max(1, math.ceil(self.random.lognormvariate(1.15, 0.8))))
        turns = []
        for _ in range(rounds):
            turns.append({"from": "human", "value": self.text(max(1, int(self.random.lognormvariate(0.9, 0.9))))})
            turns.append({"from": "gpt", "value": self.answer()})
        return {"id": f"made{number:06}", "conversations": turns}


def write_conversations(file: IO[str], number: int) -> None:
    author = Author()
    for index in range(number):
        file.write("[\n" if index == 0 else ",\n")
        json.dump(author.conversation(index), file)
    file.write("\n]\n")


class Memory(threading.Thread):
    """Samples the proportional set size of this process and its children (shared pages counted once)."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak_bytes = 0
        self.ended = threading.Event()

    def run(self) -> None:
        while not self.ended.wait(0.25):
            self.peak_bytes = max(self.peak_bytes, sum(_pss_bytes(process) for process in _family(Path("/proc/self"))))


def _family(process: Path) -> Iterator[Path]:
    yield process
    try:
        children = [child for task in (process / "task").iterdir() for child in (task / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from _family(Path("/proc") / child)


def _pss_bytes(process: Path) -> int:
    try:
        lines = (process / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:")), 0)


class Clock(Silent):
    """Wall time of each phase and busy time of each stage."""

    def __init__(self) -> None:
        self.phases: dict[str, float] = {}
        self.stages: dict[str, StageCounts] = {}
        self.phase, self.started = "", time.perf_counter()

    def began(self, phase: str, total: int | None) -> None:
        self.stop()
        self.phase, self.started = phase, time.perf_counter()

    def stop(self) -> None:
        if self.phase:
            self.phases[self.phase] = time.perf_counter() - self.started

    def advanced(self, phase: str, done: int, counts: dict[str, StageCounts]) -> None:
        for stage, each in counts.items():
            self.stages.setdefault(stage, StageCounts()).add(each)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=125_000)
    parser.add_argument("--tokenizer", default="smollm2-135m")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--keep", type=Path, help="folder for input and set, not deleted")
    args = parser.parse_args()
    folder = args.keep or Path(tempfile.mkdtemp(prefix="chaku-bench-"))
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / f"made_{args.conversations}.json"
    if not source.exists():
        with source.open("w") as file:
            write_conversations(file, args.conversations)
    memory, clock = Memory(), Clock()
    memory.start()
    started = time.perf_counter()
    config = DataConfig(inputs=(source,), tokenizer=args.tokenizer)
    built = build(config, folder / "set", processes=args.processes, overwrite=True, watcher=clock)
    wall_s = time.perf_counter() - started
    clock.stop()
    memory.ended.set()
    report(
        args.conversations, source.stat().st_size, wall_s, clock, memory.peak_bytes, built.manifest["audit"]["facts"]
    )
    if args.keep is None:
        shutil.rmtree(folder)


def report(
    number: int, source_bytes: int, wall_s: float, clock: Clock, peak_bytes: int, facts: dict[str, object]
) -> None:
    print(f"{number:,} conversations, {source_bytes / 1e6:,.0f} MB of JSON, {facts['tokens']:,} tokens")
    print(f"{'phase':<14}{'wall s':>9}{'conv/s':>10}")
    for phase, seconds in clock.phases.items():
        print(f"{phase:<14}{seconds:>9.1f}{number / seconds:>10,.0f}")
    print(f"{'together':<14}{wall_s:>9.1f}{number / wall_s:>10,.0f}")
    print(f"{'stage':<14}{'busy s':>9}{'conv/s a core':>15}")
    for stage, counts in clock.stages.items():
        if counts.seconds:
            passed = counts.entered or number
            print(f"{stage:<14}{counts.seconds:>9.1f}{passed / counts.seconds:>15,.0f}")
    print(f"peak memory of all processes: {peak_bytes / 1e6:,.0f} MB; rows {facts['fill']:.1%} full")


if __name__ == "__main__":
    main()
