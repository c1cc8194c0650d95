"""What an answer looks like on a terminal, and how little of it is written twice."""

import io
import re

import pytest
from rich.console import Console

from chaku.cli.terminal.view import MarkdownView, PlainView

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Screen:
    def __init__(self, width=100, height=30):
        self.out = io.StringIO()
        self.console = Console(file=self.out, force_terminal=True, width=width, height=height, color_system="standard")

    @property
    def text(self):
        return CONTROL.sub("", self.out.getvalue())

    def show(self, *texts):
        with MarkdownView(self.console) as view:
            for text in texts:
                view.text(text)
        return self.text


def test_what_is_finished_is_written_once():
    screen = Screen()
    lines = [f"{number}. an item of a rather long list, number {number}\n" for number in range(1, 1001)]
    with MarkdownView(screen.console) as view:
        for number, line in enumerate(lines):
            view.text(line[:9])
            view.text(line[9:])
            if number == 500:
                view.draw()
    assert [screen.text.count(f" list, number {number}\n") for number in (1, 500, 1000)] == [1, 1, 1]
    assert len(screen.out.getvalue()) < 3 * sum(map(len, lines))


@pytest.mark.parametrize("text", ["word " * 700, "```\n" + "x" * 50_000], ids=["paragraph", "code"])
def test_an_open_block_is_never_drawn_higher_than_the_screen(text):
    screen = Screen(width=40, height=10)
    with MarkdownView(screen.console) as view:
        view.text(text)
        before = screen.text.count("\n")
        view.draw()
        assert screen.text.count("\n") - before < 10


def test_nothing_new_is_not_drawn():
    screen = Screen()
    with MarkdownView(screen.console) as view:
        view.text("first\n\nopen")
        view.draw()
        before = len(screen.out.getvalue())
        view.draw()
        assert len(screen.out.getvalue()) == before


@pytest.mark.parametrize("width", [24, 40, 100])
@pytest.mark.parametrize(
    "text",
    [
        "| Algorithm | 备注 |\n|---|---:|\n| Quicksort-with-a-very-long-name | 只用于教学 and practice |",
        "Raw <b>html</b>, <think>tags</think>, x < y && a_b_c, \\(a^2\\) and \\[b\\].",
        "<div>\nonly html\n</div>",
        "这是一个很长的中文句子，用来检查宽字符在窄终端里怎样换行，它应该整齐地换行。",
        "```python\nlong_name = some_function(with_many, arguments, that_do_not_fit, on_the_line)\n```",
        "3. three\n4. four",
        "[a link](https://example.org/a/long/path)",
    ],
    ids=["table", "html inline", "html block", "wide", "code", "numbers", "link"],
)
def test_no_character_is_lost_however_narrow(text, width):
    drawn = set(Screen(width).show(text))
    words = re.findall(r"[^\s|`:\-\[\]]+", text.replace("```python", "")) if "](" not in text else ["https://example"]
    assert {character for word in words for character in word} <= drawn


def test_lines_end_without_spaces_so_that_copying_is_clean():
    shown = Screen().show("# Head\n\nText\n\n- one\n- two\n\n> quote\n\n```\ncode\n```\n")
    assert not [line for line in shown.splitlines() if line != line.rstrip()]
    assert shown.rstrip("\n").split("\n") == [
        *("Head", "", "Text", "", " • one", " • two", "", "▌ quote", "", "─" * 100, "code", "─" * 100),
    ]


def test_reasoning_is_set_apart_and_ends_with_its_time():
    screen = Screen()
    with MarkdownView(screen.console) as view:
        view.reasoning("First I\nthink.")
        view.text("Answer.")
    assert re.search(r"  First I\n  think\.\nthought for \d\.\d s\n\nAnswer\.", screen.text)
    assert "\x1b[2;3mFirst I" in screen.out.getvalue()


def test_in_a_pipe_the_answer_keeps_its_bytes_and_reasoning_goes_aside():
    out, aside = io.StringIO(), io.StringIO()
    with PlainView(out, aside) as view:
        view.reasoning("hm")
        view.text("# a\x1b[1m")
    assert out.getvalue() == "# a\x1b[1m\n"
    assert CONTROL.sub("", aside.getvalue()) == "hm\n\n"
