"""Input that would cost a parser more than linear time, made harmless before it is parsed.

lexbor (selectolax 1.0.2) walks its stack of open elements for every block start tag, and a tag's attributes for every
further attribute: 100,000 nested `<div>` take it 30 s, 100,000 attributes on one tag 44 s. A page never has either.
This is a tokenizer that only ever drops tags or attributes; what the text means is left to the parser.
"""

from __future__ import annotations

import re
from collections import Counter

MAX_DEPTH = 256
"""Elements that may be open at once; browsers stop at 512. Start tags past it are dropped, their text stays."""
MAX_ATTRIBUTE_WORDS = 256
"""White-space separated words within one tag; past it the tag loses its attributes (so do long SVG paths)."""
_HARMLESS_TAGS = 4_000
_HARMLESS_CHARS = 60_000

_TAG = re.compile(r"<(/?)([A-Za-z][^\s/>]*)([^>]*)>?")
# Elements that never nest by themselves: void ones, and those whose end tag HTML lets people leave out.
_UNNESTED = frozenset(
    """area base br col embed hr img input link meta param source track wbr
    p li dt dd tr td th thead tbody tfoot option optgroup colgroup caption rt rp""".split()  # noqa: SIM905
)


def bounded(html: str, notes: Counter[str]) -> str:
    """The same HTML within the limits; most input comes back as it is. Dropped tags are counted in `notes`."""
    if len(html) < _HARMLESS_CHARS and html.count("<") < _HARMLESS_TAGS:
        return html
    depth = 0
    dropped: Counter[str] = Counter()

    def tame(tag: re.Match[str]) -> str:
        nonlocal depth
        closing, name, attributes = tag.groups()
        name = name.lower()
        if (
            len(attributes) > MAX_ATTRIBUTE_WORDS
            and len(attributes.split(None, MAX_ATTRIBUTE_WORDS)) > MAX_ATTRIBUTE_WORDS
        ):
            notes["attributes_dropped"] += 1
            return f"<{closing}{name}>"
        if name in _UNNESTED or attributes.endswith("/"):
            return tag[0]
        if closing:
            if dropped[name]:
                dropped[name] -= 1
                return ""
            depth = max(depth - 1, 0)
        elif depth >= MAX_DEPTH:
            notes["depth_flattened"] += 1
            dropped[name] += 1
            return ""
        else:
            depth += 1
        return tag[0]

    return _TAG.sub(tame, html)
