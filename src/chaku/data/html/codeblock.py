"""Code out of a chat page: which element holds it, its language, and where the toolbar around it ends.

The shapes seen between 2023 and 2025: `pre > div.toolbar(span language, button "Copy code") + div > code.hljs`, the
same with the language as the toolbar's bare text and sticky button rows, `pre` around an editor's `.cm-content` with
`<br>` between lines, a `pre` with neither, and a block `code` whose `pre` got lost in an editor.
"""

from __future__ import annotations

import re

from selectolax.lexbor import LexborNode

_CLASS = re.compile(r"(?:^|\s)(?:language|lang)-([A-Za-z0-9+#._-]{1,32})(?=\s|$)")
_LABEL = re.compile(r"[A-Za-z][A-Za-z0-9+#._-]{0,31}(?: ?(?:script|basic))?")
_NOT_A_LANGUAGE = frozenset(
    ("copy", "copied", "code", "edit", "run", "wrap", "download", "collapse", "expand", "preview")
)
_CLUTTER = "br, button, svg, script, style, div, p, li"
_LINES = frozenset(("div", "p", "li"))
"""Editors put each line of code into a block of its own."""
_WITHOUT = frozenset(("button", "svg", "script", "style", "template"))


def is_block_code(node: LexborNode) -> bool:
    """Whether a `code` outside a `pre` is a block: the page gives only those these classes."""
    classes = node.attributes.get("class") or ""
    return "whitespace-pre" in classes or "hljs" in classes.split()


def code_block(node: LexborNode) -> tuple[str, str, bool]:
    """Text, language (or "") and whether a toolbar was left out, of a `pre` or a block `code`."""
    holder = node if node.tag == "code" else node.css_first("code") or node.css_first(".cm-content")
    if holder is None:
        return code_text(node).strip("\n"), _language_of(node), False
    label, has_toolbar = ("", False) if holder.mem_id == node.mem_id else _toolbar(node, holder)
    language = _language_of(holder) or _language_of(node) or label
    text = code_text(holder)
    return text.removeprefix("\n").rstrip("\n"), language, has_toolbar


def code_text(node: LexborNode) -> str:
    """Text as it stands, a newline for each `<br>`, without buttons."""
    only = node.first_child
    if only is not None and only.is_text_node and only.next is None:
        return (only.text_content or "").replace("\r\n", "\n")
    if node.css_first(_CLUTTER) is None:
        return node.text(deep=True).replace("\r\n", "\n")
    pieces: list[str] = []
    opened: list[LexborNode] = []
    child = node.first_child
    while True:
        while child is not None:
            if child.is_text_node:
                text = child.text_content or ""
                if not (text.isspace() and child.prev is not None and child.prev.tag in _LINES):
                    pieces.append(text)
            elif child.tag == "br":
                pieces.append("\n")
            elif child.tag in _LINES and child.first_child is None:
                pieces.append("\n" if not pieces or pieces[-1].endswith("\n") else "\n\n")
            elif child.tag not in _WITHOUT and child.first_child is not None:
                if child.tag in _LINES and pieces and not pieces[-1].endswith("\n"):
                    pieces.append("\n")
                opened.append(child)
                child = child.first_child
                continue
            child = child.next
        if not opened:
            return "".join(pieces).replace("\r\n", "\n")
        child = opened.pop().next


def _toolbar(pre: LexborNode, holder: LexborNode) -> tuple[str, bool]:
    """The language that the toolbar names, and whether there was one: everything in `pre` that is not the code."""
    label, found = "", False
    opened: list[LexborNode] = []
    child = pre.first_child
    while True:
        while child is not None:
            if child.is_text_node:
                text = (child.text_content or "").strip()
                found = found or bool(text)
                lowered = text.lower()
                if not label and lowered not in _NOT_A_LANGUAGE and _LABEL.fullmatch(text):
                    label = lowered
            elif child.tag in _WITHOUT:
                found = found or child.tag == "button"
            elif child.mem_id != holder.mem_id and child.first_child is not None:
                opened.append(child)
                child = child.first_child
                continue
            child = child.next
        if not opened:
            return label.replace(" ", ""), found
        child = opened.pop().next


def _language_of(node: LexborNode) -> str:
    attributes = node.attributes
    found = _CLASS.search(attributes.get("class") or "")
    name = found[1] if found else attributes.get("data-language") or ""
    return name if _LABEL.fullmatch(name) else ""
