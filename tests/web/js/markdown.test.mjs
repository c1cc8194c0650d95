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
  assert.match(html("| a<br>b<BR/>c |\n|---|\n"), /a<br>\s*b<br>\s*c/);
  assert.match(html("```math\nx^2\n```"), /data-tex="x\^2" data-display="1"/);
  assert.doesNotMatch(html("<br onclick=x> <b>c</b> <brx>"), /<b[r ]/);
});

const html = (source, env = {}) => piecesOf(source, env).map((piece) => piece.html).join("");

test("a task is a list item whose text begins with a box, and a footnote mark needs its footnote", () => {
  assert.equal(html("- [ ] a\n- [X] b\n- [x]c\n").match(/class="task[^"]*"/g).join(), 'class="task",class="task done"');
  assert.match(html("[ ] a"), /<p>\s*\[ \] a<\/p>/);
  assert.match(html("a[^b]"), /a\[\^b\]/);
  assert.match(html("a[^constructor]\n\n[^c]: d"), /a\[\^constructor\]/);
  assert.match(html("a[^b]\n\n[^b]: c\nd\n\n    e\n\nf"), /<sup data-note="b">.*<div class="note" data-note="b">.*c\s+d.*e.*<\/div>.*f/s);
});

test("emphasis needs no space beside east asian letters, and still one beside latin ones", () => {
  for (const text of ["彼は**「はい」**と", "**「重要」**である", "中文**（注）**后", "한국어**(주)**는", "これは~~「古い」~~です"]) {
    assert.match(html(text), /<(strong|s)>/, text);
  }
  for (const text of ['a**"b"**c', "字 ** 字 ** 字", "字_「a」_字"]) assert.doesNotMatch(html(text), /<(strong|em)>/, text);
});

test("the new rules take time in proportion to the text", () => {
  const texts = {
    "notes in notes": (n) => "[^1]: ".repeat(n),
    notes: (n) => "[^a]: x\n".repeat(n),
    environments: (n) => "\\begin{align}\n".repeat(n) + "\\end{align} x\n".repeat(n),
    tasks: (n) => "- [ ] a\n".repeat(n),
    emphasis: (n) => "字**「".repeat(n) + "」**字".repeat(n),
  };
  for (const [name, text] of Object.entries(texts)) {
    const time = (n) => {
      const start = performance.now();
      piecesOf(text(n), {});
      return performance.now() - start;
    };
    time(1_000); // warm
    const found = [];
    const isLinear = () => {
      const [short, long] = [Math.max(1, time(1_000)), time(8_000)];
      found.push(`${short} ms, then ${long} ms`);
      return long < short * 8 * 5; // quadratic takes 64 times as long
    };
    assert.ok(isLinear() || isLinear() || isLinear(), `${name}: ${found}`); // a loaded machine may stop one of them
  }
});
