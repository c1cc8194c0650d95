"""Block elements: paragraphs, headings, quotes, lists, tables.

Each `enter_…` returns what to do at the element's end, or None when its content has been dealt with.
"""

from __future__ import annotations

import re
from functools import partial

from selectolax.lexbor import LexborNode

from chaku.data.html import markdown
from chaku.data.html.inline import add_math, enter_math, plain_line, tex_of
from chaku.data.html.markdown import Item
from chaku.data.html.page import MAX_NESTING, Leave, Page, is_hidden, nothing, number_of

_ALIGN = re.compile(r"text-align:\s*(left|center|right)")


def enter_paragraph(page: Page, node: LexborNode) -> Leave | None:
    """A paragraph; most are one plain line."""
    attributes = node.attributes
    parent = page.frames[-1]
    if "class" in attributes or is_hidden(attributes, "") or (line := plain_line(page, node)) is None:
        return enter_block(page, node)
    page.flush(parent)
    for paragraph in markdown.paragraph(line):
        page.append(parent, "p", paragraph)
    return None


def enter_block(page: Page, node: LexborNode) -> Leave | None:
    """A paragraph, or a box around blocks; `whitespace-pre-wrap` boxes keep what was typed as it was typed."""
    tag = node.tag
    attributes = node.attributes
    if not attributes:
        parent = page.frames[-1]
        kind = "cell" if parent.kind == "cell" else "p" if tag == "p" else "div"
        page.open(kind, verbatim=parent.verbatim and tag == "div")
        return _leave_block
    classes = attributes.get("class") or ""
    if is_hidden(attributes, classes):
        page.notes["hidden_removed"] += 1
        return None
    if attributes.get("role") == "button":
        page.notes["button_removed"] += 1
        return None
    if source := tex_of(attributes):
        add_math(page, source, display=True)
        return None
    parent = page.frames[-1]
    prose = "markdown" in classes or "prose" in classes
    if "katex-display" in classes or "math-display" in classes:
        return enter_math(page, node, display=True)
    if "border-red" in classes or "text-red" in classes or attributes.get("role") == "alert":
        page.notes["error_box"] += 1
    verbatim = not prose and tag == "div" and (parent.verbatim or "whitespace-pre-wrap" in classes)
    kind = parent.kind if parent.kind == "cell" else "p" if tag == "p" else "div"
    page.open(kind, prose=prose, verbatim=verbatim)
    return _leave_block


def _leave_block(page: Page) -> None:
    frame = page.close()
    for kind, text in frame.blocks:
        page.add_block(kind, text)


def enter_heading(page: Page, node: LexborNode, *, level: int) -> Leave | None:
    """One line of text; code blocks and the like inside it come after it."""
    attributes = node.attributes
    if is_hidden(attributes, attributes.get("class") or ""):
        page.notes["hidden_removed"] += 1
        return None
    page.open("heading")
    return partial(_leave_heading, level=level)


def _leave_heading(page: Page, *, level: int) -> None:
    blocks = page.close().blocks
    lines = [text for kind, text in blocks if kind in ("text", "p")]
    if lines:
        page.add_block("heading", "#" * level + " " + " ".join(" ".join(lines).split()))
    for kind, text in blocks:
        if kind not in ("text", "p"):
            page.add_block(kind, text)


def enter_quote(page: Page, _: LexborNode) -> Leave | None:
    """A block quote."""
    if page.nesting >= MAX_NESTING:
        page.notes["nesting_flattened"] += 1
        return nothing
    page.nesting += 1
    page.open("quote")
    return _leave_quote


def _leave_quote(page: Page) -> None:
    page.nesting -= 1
    frame = page.close()
    page.add_block("quote", markdown.quote("\n\n".join(text for _, text in frame.blocks)) if frame.blocks else "")


def enter_list(page: Page, node: LexborNode) -> Leave | None:
    """A list, ordered or not."""
    if page.nesting >= MAX_NESTING:
        page.notes["nesting_flattened"] += 1
        return nothing
    page.nesting += 1
    frame = page.open("list")
    if node.tag == "ol":
        frame.start = number_of(node.attributes.get("start"), 1)
    return _leave_list


def _leave_list(page: Page) -> None:
    page.nesting -= 1
    frame = page.close()
    if not frame.items:
        return
    ordered = frame.start is not None
    before = page.frames[-1].items[-1].blocks if page.frames[-1].items else page.frames[-1].blocks
    adjacent = bool(before) and before[-1][0] == "list" and not "".join(page.frames[-1].buffers[0]).strip()
    marker = (".", ")") if ordered else ("-", "*")
    same = adjacent and _is_same_list(before[-1][1], ordered=ordered, marker=marker[0])
    page.add_block("list", markdown.list_block(frame.items, start=frame.start, marker=marker[same]))


def enter_item(page: Page, node: LexborNode) -> Leave | None:
    """A list item; one that has no list gets its own."""
    if page.frames[-1].kind != "list":
        if page.nesting >= MAX_NESTING:
            return enter_block(page, node)
        page.notes["list_repaired"] += 1
        page.nesting += 1
        page.open("list")
        return _enter_item_in_list(page, node, leave_list=True)
    return _enter_item_in_list(page, node)


def _enter_item_in_list(page: Page, node: LexborNode, *, leave_list: bool = False) -> Leave | None:
    value = node.attributes.get("value")
    number = number_of(value, 0) if value is not None else None
    if not leave_list and (line := plain_line(page, node)) is not None:
        page.flush(page.frames[-1])
        page.frames[-1].items.append(Item([("text", text) for text in markdown.paragraph(line)], number))
        return None
    page.open("li").number = number
    return _leave_single_item if leave_list else _leave_item


def _leave_item(page: Page) -> None:
    frame = page.close()
    page.frames[-1].items.append(Item(frame.blocks, frame.number))


def _leave_single_item(page: Page) -> None:
    _leave_item(page)
    _leave_list(page)


def enter_rule(page: Page, _: LexborNode) -> None:
    """A thematic break; `- ---` would be one without a list."""
    page.add_block("rule", "***" if page.frames[-1].kind == "li" else "---")


def enter_table(page: Page, _: LexborNode) -> Leave | None:
    """A table; one within a cell gives its text to that cell."""
    if any(frame.kind == "cell" for frame in page.frames):
        page.notes["nested_table_flattened"] += 1
        return nothing
    page.open("table")
    return _leave_table


def _leave_table(page: Page) -> None:
    frame = page.close()
    for kind, text in frame.blocks:
        page.add_block(kind, text)
    rows = [row for row in frame.rows if row]
    if any(any(cells) for cells in rows):
        page.add_block("table", markdown.table(rows, frame.alignment))


def enter_row(page: Page, _: LexborNode) -> Leave | None:
    """A table row."""
    if page.frames[-1].kind == "table":
        page.frames[-1].rows.append([])
    return nothing


def enter_cell(page: Page, node: LexborNode) -> Leave | None:
    """A table cell; the first row's cells say how their columns are aligned."""
    table = page.frames[-1]
    if table.kind != "table" or not table.rows:
        if table.kind != "cell":
            return enter_block(page, node)
        page.text(" ")
        return nothing
    attributes = node.attributes
    if len(table.rows) == 1:
        found = _ALIGN.search(attributes.get("style") or "")
        table.alignment.append(found[1] if found else (attributes.get("align") or "").lower())
    span = min(number_of(attributes.get("colspan"), 1), 32)
    if (line := plain_line(page, node)) is not None:
        table.rows[-1] += [markdown.cell(markdown.paragraph(line)), *[""] * (span - 1)]
        return None
    page.open("cell")
    return partial(_leave_cell, span=span)


def _leave_cell(page: Page, *, span: int) -> None:
    frame = page.close()
    row = page.frames[-1].rows[-1]
    row.append(markdown.cell(text for _, text in frame.blocks))
    row += [""] * (span - 1)


def _is_same_list(text: str, *, ordered: bool, marker: str) -> bool:
    lead = text.split(" ", 1)[0]
    return lead.endswith(marker) and lead[0].isdigit() == ordered
