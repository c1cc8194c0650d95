import assert from "node:assert/strict";
import test from "node:test";
import { spansOf } from "../../../src/chaku/web/static/markdown/highlight.js";
import { piecesOf } from "../../../src/chaku/web/static/markdown/markdown.js";

const SOURCES = [
  "- one *two*\n".repeat(2000),
  "> quote\n>\n".repeat(900),
  "| a | b |\n|---|---|\n" + "| c | *d* |\n".repeat(1500),
  "*a* **b** [c](https://d.e) ".repeat(1000),
  "**b [" + "*a* ".repeat(500) + "](https://d.e)**",
  "1. a\n   - b\n     > c\n".repeat(500),
];

test("a long block is cut into well-formed pieces that hold all of its text once", () => {
  for (const source of SOURCES) {
    const pieces = piecesOf(source, {});
    assert.ok(pieces.length > 1, source.slice(0, 20));
    const text = pieces.map((piece) => piece.html.replace(/<[^>]*>|\s/g, "")).join("");
    assert.equal(text, source.replace(/https:\/\/d.e|[-*\d.>|[\]()\s]/g, ""));
    for (const { html } of pieces) {
      const open = [];
      for (const [, slash, tag] of html.matchAll(/<(\/?)([a-z][a-z0-9]*)[^>]*>/g)) {
        if (["br", "hr", "img"].includes(tag)) continue;
        if (slash) assert.equal(open.pop(), tag, html.slice(0, 200));
        else open.push(tag);
      }
      assert.deepEqual(open, []);
    }
  }
});

test("unclosed formulas are read in linear time, and closed ones between them are found", () => {
  const start = performance.now();
  for (const text of ["\\( ".repeat(60_000), "\\[\n".repeat(30_000), "\\[\n".repeat(30_000) + "\\] and on", "$$ a\n".repeat(30_001)]) piecesOf(text, {});
  assert.ok(performance.now() - start < 15_000); // quadratic, each takes minutes
  const html = piecesOf("\\( a \\[ b \\] c\n\n\\[\nd\n\\]\n\n\\( e \\) \\( f", {}).map((p) => p.html).join("");
  assert.deepEqual([...html.matchAll(/data-tex="([^"]*)"/g)].map((m) => m[1]), [" b ", "d", " e "]);
});

test("coloured code is taken apart into text and classes that make up the same text", () => {
  const html = '<span class="hljs-string">&quot;a<span class="hljs-subst">${b}</span>&lt;&#x27;</span> &amp;&amp; c';
  assert.deepEqual(spansOf(html), ['"a', "hljs-string", "${b}", "hljs-string hljs-subst", "<'", "hljs-string", " && c", ""]);
  const many = spansOf('<span class="x">a</span>b'.repeat(30_000));
  assert.ok(many.length < 25_000);
  assert.equal(many.filter((_, i) => i % 2 === 0).join(""), "ab".repeat(30_000));
});

test("a line break in a cell breaks the line, a math fence is a formula, and no other tag is believed", () => {
  const html = (source) => piecesOf(source, {}).map((piece) => piece.html).join("");
  assert.match(html("| a<br>b<BR/>c |\n|---|\n"), /a<br>\s*b<br>\s*c/);
  assert.match(html("```math\nx^2\n```"), /data-tex="x\^2" data-display="1"/);
  assert.doesNotMatch(html("<br onclick=x> <b>c</b> <brx>"), /<b[r ]/);
});
