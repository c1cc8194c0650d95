"""Pieces of Markdown as strings: paragraphs with the fewest escapes, code, lists, tables, links. Knows no DOM.

Text that came out of a page is *marked* first: every character that could act as Markdown becomes a stand-in (a
Unicode noncharacter), so that a finished paragraph still tells text from markup. `paragraph` then decides per
character, with the whole paragraph in sight, whether a backslash is needed. `snake_case`, `5*3=15`, `a < b`,
`List<String>`, `$5` and `\\(x\\)` come out bare; `*a*`, `__init__`, `<div>` and `&lt;` in text get their backslash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

STAR, UNDERSCORE, TICK, BACKSLASH, LESS, AMP, CLOSE, BANG, DOLLAR, TILDE, OPEN, BREAK = map(chr, range(0xFDD0, 0xFDDC))

_SPECIAL = re.compile(r"[*_`\\<&\]!$~\[]")
_MARK = dict(zip(r"*_`\<&]!$~[", map(chr, range(0xFDD0, 0xFDDB)), strict=True))
_PLAIN = dict(zip(map(chr, range(0xFDD0, 0xFDDB)), r"*_`\<&]!$~[", strict=True))
_RUN = re.compile("([\ufdd0-\ufdda])\\1*")
_URL = re.compile(r"(https?://[^\s<>]+)")
_BREAKS = re.compile(f"[ \n]*{BREAK}[ \n{BREAK}]*")
_LINE = re.compile(r"^(?:#{1,6}(?:[ \t]|$)|>|=+[ \t]*$|(?:[-*_][ \t]*){3,}$|~~~|(?=.*-)(?=.*\|)[-:| ]+$)", re.MULTILINE)
# What a backslash in text would escape. `\(`, `\[`, `\{`, `\,` and the like stay: they are TeX to every chat page.
_AFTER_BACKSLASH = frozenset((STAR, UNDERSCORE, TICK, LESS, AMP, TILDE, *"*`\n.-+=/?@^\"'"))
_LINE_STARTS = frozenset("#>=-*_~|:")
_ENTITY = re.compile(r"#?[A-Za-z0-9]{1,31};")
_TICKS = re.compile("`+")
# The names that a Markdown renderer with HTML enabled would run or draw; `<String>` and `<T>` are not among them.
_ELEMENTS = """a abbr address area article aside audio b base blockquote body br button canvas caption cite code col
    colgroup data datalist dd del details dfn dialog div dl dt em embed fieldset figcaption figure font footer form
    frame frameset h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd label legend li link main map mark
    math menu meta meter nav noscript object ol optgroup option output p param picture pre progress q rp rt ruby s samp
    script section select slot small source span strike strong style sub summary sup svg table tbody td template
    textarea tfoot th thead time title tr track tt u ul var video wbr""".split()  # noqa: SIM905
_TAG = re.compile(rf"(?:/?(?:{'|'.join(_ELEMENTS)})(?![\w-])|[!{BANG}]|\?|https?:|mailto:)", re.IGNORECASE)
ELEMENTS = frozenset(_ELEMENTS)


def mark(text: str) -> str:
    """Swap what could act as Markdown for its stand-in. URLs stay as they are, underscores and all."""
    found = _SPECIAL.findall(text)
    if not found:
        return text
    pieces = _URL.split(text) if "://" in text else [text]
    for special in set(found):
        pieces[::2] = [piece.replace(special, _MARK[special]) for piece in pieces[::2]]
    return "".join(pieces)


def unmark(text: str) -> str:
    """The text again, with no escapes."""
    return _RUN.sub(lambda run: _PLAIN[run[1]] * len(run[0]), text)


def paragraph(text: str) -> list[str]:
    """Finish an inline string: decide escapes, write breaks as two spaces and a newline, part at double breaks."""
    if BREAK in text:
        text = _BREAKS.sub(lambda found: BREAK if found[0].count(BREAK) == 1 else BREAK * 2, text).strip(BREAK)
        parts = [part.replace(BREAK, "  \n") for part in text.split(BREAK * 2)]
    else:
        parts = [text]
    return [finished for part in parts if (finished := _escape(part.strip(" \n")))]


def _escape(text: str) -> str:
    has_newline = "\n" in text
    if not text.isprintable() and _RUN.search(text):
        text = _Escaper(text).escaped()
    if (has_newline or text[:1] in _LINE_STARTS) and _LINE.search(text):
        text = _LINE.sub(lambda found: "\\" + found[0], text)
    return text


class _Escaper:
    """The decisions for one paragraph: counts are taken once, neighbours are looked at per run."""

    def __init__(self, text: str) -> None:
        self.text = text
        loose_stars = sum(1 for run in _RUN.finditer(text) if run[1] == STAR and not self.is_apart(run))
        self.stars = loose_stars + text.count("*") >= 2
        self.ticks = text.count(TICK) >= 2 or "`" in text
        self.dollars = "$" in text
        self.strikes = text.count(TILDE * 2) + text.count("~~") >= 2
        self.brackets = OPEN in text
        self.underscores = self.stars or sum(1 for run in _RUN.finditer(text) if self.is_open_underscore(run)) >= 2

    def escaped(self) -> str:
        return _RUN.sub(self.decide, self.text)

    def around(self, run: re.Match[str]) -> tuple[str, str]:
        before = self.text[run.start() - 1] if run.start() else " "
        after = self.text[run.end()] if run.end() < len(self.text) else " "
        return before, after

    def is_open_underscore(self, run: re.Match[str]) -> bool:
        before, after = self.around(run)
        within_word = before.isalnum() and after.isalnum()
        return run[1] == UNDERSCORE and not within_word and not self.is_apart(run)

    def is_apart(self, run: re.Match[str]) -> bool:
        """Between spaces nothing can begin or end emphasis."""
        before, after = self.around(run)
        return before.isspace() and after.isspace()

    def decide(self, run: re.Match[str]) -> str:
        mark, plain = run[1], _PLAIN[run[1]]
        _, after = self.around(run)
        if mark == STAR:
            needed = self.stars and not self.is_apart(run)
        elif mark == UNDERSCORE:
            needed = self.underscores and self.is_open_underscore(run)
        elif mark == TICK:
            needed = self.ticks
        elif mark == TILDE:
            needed = self.strikes and len(run[0]) >= 2
        elif mark == DOLLAR:
            needed = self.dollars
        else:
            before_last = plain * (len(run[0]) - 1) * (2 if mark == BACKSLASH else 1)
            return before_last + ("\\" if self.is_needed_at_end(mark, run, after) else "") + plain
        return ("\\" + plain) * len(run[0]) if needed else plain * len(run[0])

    def is_needed_at_end(self, mark: str, run: re.Match[str], after: str) -> bool:
        if mark == LESS:
            return _TAG.match(self.text, run.end()) is not None
        if mark == AMP:
            return _ENTITY.match(self.text, run.end()) is not None
        if mark == CLOSE:
            return self.brackets and after == "("
        if mark == BANG:
            return after == "["
        if mark == BACKSLASH:
            following = _RUN.match(self.text, run.end())
            is_escape = following is not None and self.decide(following).startswith("\\")
            return is_escape or run.end() == len(self.text) or after in _AFTER_BACKSLASH
        return False


def emphasis(marker: str, inner: str) -> tuple[str, str, str]:
    """Split an emphasised run into space before, marked text and space after; markers never touch white space."""
    stripped = inner.strip(f" \n{BREAK}")
    if not stripped:
        return inner, "", ""
    start = inner.index(stripped)
    return inner[:start], f"{marker}{stripped}{marker}", inner[start + len(stripped) :]


def inline_code(text: str) -> str:
    """Code within a line, with as many backticks around as its text needs."""
    text = text.replace("\r\n", "\n").replace("\n", " ")
    if not text.strip():
        return ""
    longest = max((len(run) for run in _TICKS.findall(text)), default=0)
    ticks = "`" * (1 if "`" not in text else longest + 1)
    padded = text[0] == "`" or text[-1] == "`" or (text[0] == " " and text[-1] == " ")
    return f"{ticks} {text} {ticks}" if padded else f"{ticks}{text}{ticks}"


def fence(text: str, language: str) -> str:
    """A fenced block; the fence is longer than any run of backticks inside. Inner blank lines and indentation stay."""
    longest = max((len(run) for run in _TICKS.findall(text)), default=0)
    ticks = "`" * max(3, longest + 1)
    return f"{ticks}{language}\n{text}\n{ticks}" if text else f"{ticks}{language}\n{ticks}"


def parts_of_fence(block: str) -> tuple[str, str, str]:
    """A fenced block as its opening ticks, its language and the rest."""
    first, newline, rest = block.partition("\n")
    language = first.lstrip("`")
    return first[: len(first) - len(language)], language, newline + rest


def link(text: str, href: str, *, image: bool = False) -> str:
    """`[text](href)`, or the bare address where the text says the same."""
    if not image and unmark(text) in (href, href.removeprefix("mailto:")):
        return href.removeprefix("mailto:")
    text = text.replace(BREAK, " ").replace("\n", " ")
    if text.count(OPEN) != text.count(CLOSE):
        text = text.replace(OPEN, "\\[").replace(CLOSE, "\\]")
    target = "".join(f"%{ord(c):02X}" if c < " " or c in "<>" else c for c in href)
    if " " in target or target.count("(") != target.count(")"):
        target = f"<{target}>"
    return f"{'!' if image else ''}[{text}]({target})"


@dataclass(slots=True)
class Item:
    """One list entry: (kind, Markdown) blocks and the number it shows."""

    blocks: list[tuple[str, str]]
    number: int | None = None


def list_block(items: Sequence[Item], *, start: int | None, marker: str) -> str:
    """A list; `start` is the first number or None for bullets, `marker` is `-`, `*`, `.` or `)`. Tight where it was."""
    rendered: list[str] = []
    loose = False
    number = start
    for item in items:
        if number is None:
            lead = f"{marker} "
        else:
            number = item.number if item.number is not None else number
            lead = f"{number}{marker} "
            number += 1
        body, item_loose = _item_body(item.blocks)
        loose = loose or item_loose
        rendered.append((lead + indent(body, " " * len(lead))).rstrip(" "))
    return ("\n\n" if loose else "\n").join(rendered)


def _item_body(blocks: Iterable[tuple[str, str]]) -> tuple[str, bool]:
    body, previous, loose = "", "", False
    for kind, text in blocks:
        loose = loose or kind == "p"
        if body:
            tight = kind in ("list", "code") and previous in ("text", "list", "code")
            loose = loose or not tight
            body += "\n" if tight else "\n\n"
        body += text
        previous = kind
    return body, loose


def indent(text: str, prefix: str) -> str:
    """Indent every line but the first; blank lines stay empty."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(prefix + line if line else "" for line in rest)])


def quote(text: str) -> str:
    """A block quote."""
    return "\n".join(f"> {line}" if line else ">" for line in text.split("\n"))


def table(rows: Sequence[Sequence[str]], alignment: Sequence[str]) -> str:
    """A GFM table of finished cells; the first row is the header. Short rows stay short, which GFM allows."""
    width = max(len(row) for row in rows)
    header = [*rows[0], *[""] * (width - len(rows[0]))]
    rules = {"left": ":---", "center": ":---:", "right": "---:"}
    delimiters = [rules.get(alignment[at] if at < len(alignment) else "", "---") for at in range(width)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, delimiters, *rows[1:]))


def cell(blocks: Iterable[str]) -> str:
    """One table cell: one line, pipes escaped."""
    return "<br>".join(blocks).replace("  \n", "<br>").replace("\n", "<br>").replace("|", "\\|").strip()
