"""Inline elements, code and mathematics.

Each `enter_…` returns what to do at the element's end, or None when its content has been dealt with.
"""

from __future__ import annotations

from functools import partial

from selectolax.lexbor import LexborNode

from chaku.data.html import markdown
from chaku.data.html.codeblock import code_block, code_text, is_block_code
from chaku.data.html.markdown import BREAK, mark
from chaku.data.html.page import Leave, Mark, Page, is_hidden, is_ordinary, nothing

MARKERS = {"strong": "**", "b": "**", "em": "*", "i": "*", "del": "~~", "s": "~~", "strike": "~~"}

_UNSAFE = ("javascript:", "vbscript:", "data:", "blob:", "file:")
_TRACKING = ("?utm_source=chatgpt.com", "&utm_source=chatgpt.com")


# A formula's parts above, below and under one another, which its text alone can't tell.
_STRUCTURE = (
    "mfrac, msup, msub, msubsup, msqrt, mroot, munder, mover, munderover, mtable, .vlist, .mfrac, .msupsub, .sqrt"
)


def plain_line(page: Page, node: LexborNode) -> str | None:
    """The finished line of an element that holds only text, emphasis and code, as most do; else None.

    It says what the walk would say (a test compares them) at a third of the cost.
    """
    if page.marks:
        return None
    pieces: list[str] = []
    spaced = True
    child = node.first_child
    while child is not None:
        tag = child.tag
        inner = child if tag == "-text" else child.first_child
        if inner is None or not inner.is_text_node or (inner is not child and inner.next is not None):
            return None
        text = inner.text_content
        if not text or not is_ordinary(text):
            return None
        if inner is child:
            text = text.lstrip(" ") if spaced else text
            spaced = text.endswith(" ") if text else spaced
            pieces.append(mark(text))
        elif tag in MARKERS:
            if text[0] == " " or text[-1] == " " or (pieces and pieces[-1][-1:] in ("*", "~")):
                return None
            pieces.append(f"{MARKERS[tag]}{mark(text)}{MARKERS[tag]}")
            spaced = False
        elif tag == "code" and "class" not in child.attributes:
            pieces.append(markdown.inline_code(text))
            spaced = False
        else:
            return None
        child = child.next
    return "".join(pieces)


def enter_break(page: Page, _: LexborNode) -> None:
    """A line break; a second one in a row ends the paragraph."""
    frame = page.frames[-1]
    if frame.kind not in ("cell", "heading") and frame.buffers[-1][-1:] == [BREAK]:
        page.flush(frame)
        return
    frame.buffers[-1].append("\n" if frame.verbatim else " " if frame.kind == "heading" else BREAK)
    frame.spaced = True


def enter_mark(page: Page, _: LexborNode, *, marker: str, href: str = "") -> Leave:
    """Emphasis or a link; the same mark within itself says nothing new."""
    frame = page.frames[-1]
    if frame.verbatim or (page.marks and any(mark.marker == marker for mark in page.marks)):
        return nothing
    page.marks.append(Mark(marker, href))
    frame.buffers.append([])
    return _leave_mark


def _leave_mark(page: Page) -> None:
    page.finish_mark(page.frames[-1], page.marks[-1])
    page.marks.pop()


def enter_kept(page: Page, tag: str) -> Leave:
    """Superscript and subscript, for which Markdown has no other form."""
    page.literal(f"<{tag}>")
    return partial(Page.literal, markup=f"</{tag}>")


def enter_span(page: Page, node: LexborNode) -> Leave | None:
    """A formula, a source pill, something hidden, or nothing special."""
    attributes = node.attributes
    if not attributes:
        return nothing
    classes = attributes.get("class") or ""
    if source := tex_of(attributes):
        add_math(page, source, display=node.css_first(".katex-display") is not None)
        return None
    if attributes.get("role") == "button":
        page.notes["button_removed"] += 1
        return None
    if "katex" in classes or "math" in classes:
        if "katex-display" in classes:
            return enter_math(page, node, display=True)
        if "katex" in classes:
            return enter_math(page, node, display=False)
    if attributes.get("data-testid") == "webpage-citation-pill":
        _enter_citation(page, node)
        return None
    if is_hidden(attributes, classes):
        page.notes["hidden_removed"] += 1
        return None
    return nothing


def tex_of(attributes: dict[str, str | None]) -> str:
    """The TeX that an element carries beside what it shows: ChatGPT's and Gemini's attributes."""
    return attributes.get("data-math-source") or attributes.get("data-math") or ""


def _enter_citation(page: Page, node: LexborNode) -> None:
    """A source pill: one link with its first label; the page repeats labels for an animation."""
    anchor = node.css_first("a")
    if anchor is None:
        return
    labels = (text.text_content or "" for text in anchor.traverse(include_text=True) if text.is_text_node)
    label = next((text.strip() for text in labels if text.strip()), "")
    href = _safe_href(anchor.attributes.get("href"))
    page.notes["citation_linked"] += 1
    if label and href:
        page.text(" ")
        page.literal(markdown.link(mark(label), href))


def enter_link(page: Page, node: LexborNode) -> Leave | None:
    """A link; one that would run code or stay on the page keeps its text only."""
    given = node.attributes.get("href")
    href = _safe_href(given)
    if not href:
        if given and not given.startswith("#"):
            page.notes["unsafe_link_removed"] += 1
        return nothing
    return enter_mark(page, node, marker="[", href=href)


def enter_image(page: Page, node: LexborNode) -> None:
    """An image by address; one that carries its bytes keeps its description only."""
    attributes = node.attributes
    alt = " ".join((attributes.get("alt") or "").split())
    source = _safe_href(attributes.get("src"))
    if source:
        page.literal(markdown.link(mark(alt), source, image=True))
    else:
        page.notes["inline_image_dropped"] += 1
        page.text(alt)


def enter_input(page: Page, node: LexborNode) -> None:
    """The box of a task list."""
    if node.attributes.get("type") == "checkbox" and any(frame.kind == "li" for frame in page.frames):
        page.literal("[x]" if "checked" in node.attributes else "[ ]")
        page.text(" ")


def enter_code(page: Page, node: LexborNode) -> None:
    """Code within a line."""
    if is_block_code(node):
        enter_pre(page, node)
        return
    text = page.without_junk(code_text(node))
    if page.frames[-1].verbatim:
        page.text(text)
    else:
        page.literal(markdown.inline_code(text))


def enter_pre(page: Page, node: LexborNode) -> None:
    """A code block; in a table cell, a code span per line."""
    text, language, has_toolbar = code_block(node)
    page.notes["toolbar_removed"] += has_toolbar
    text = page.without_junk(text)
    if any(frame.kind == "cell" for frame in page.frames):
        for line in text.split("\n"):
            page.literal(markdown.inline_code(line))
            page.frames[-1].buffers[-1].append(BREAK)
        return
    page.add_block("code", markdown.fence(text, language))


def enter_script(page: Page, node: LexborNode) -> None:
    """MathJax source is a formula, any other script is dropped."""
    kind = node.attributes.get("type") or ""
    if kind.split(";")[0].strip() == "math/tex":
        add_math(page, node.text(deep=True), display="mode=display" in kind)
    else:
        page.notes["script_removed"] += 1


def enter_math(page: Page, node: LexborNode, *, display: bool) -> Leave | None:
    """KaTeX or MathML: its TeX once, whatever copies there are for the eye."""
    annotation = node.css_first('annotation[encoding="application/x-tex"]')
    if annotation is not None:
        add_math(page, annotation.text(deep=True), display=display)
        return None
    if "katex-error" in (node.attributes.get("class") or ""):
        add_math(page, node.text(deep=True), display=display)
        return None
    page.notes["formula_lost" if node.css_first(_STRUCTURE) is not None else "math_without_tex"] += 1
    visual = node.css_first("math, .katex-mathml") or node.css_first(".katex-html") or node
    page.text(code_text(visual))
    return None


def enter_mathjax(page: Page, node: LexborNode) -> Leave | None:
    """MathJax draws its glyphs by style sheet: without the MathML for screen readers nothing is left of a formula."""
    mathml = node.css_first("math")
    if mathml is not None:
        return enter_math(page, mathml, display=node.attributes.get("display") == "true")
    page.notes["formula_lost"] += 1
    return None


def enter_mathml(page: Page, node: LexborNode) -> Leave | None:
    """A formula in MathML alone."""
    return enter_math(page, node, display=node.attributes.get("display") == "block")


def add_math(page: Page, tex: str, *, display: bool) -> None:
    """Add TeX between dollars; a formula set apart is a block of its own."""
    tex = tex.strip()
    if not tex:
        return
    page.notes["math"] += 1
    inline = any(frame.kind in ("cell", "heading") for frame in page.frames)
    if display and not inline:
        page.add_block("math", f"$$\n{tex}\n$$")
    else:
        page.literal("$" + " ".join(tex.split()) + "$")


def _safe_href(href: str | None) -> str:
    """The address without tracking, or nothing where following it would run code or stay on the page."""
    href = "".join((href or "").split("\n")).strip()
    compact = "".join(href.split()).lower()
    if not href or href.startswith("#") or compact.startswith(_UNSAFE):
        return ""
    for tracking in _TRACKING:
        href = href.removesuffix(tracking)
    return href
