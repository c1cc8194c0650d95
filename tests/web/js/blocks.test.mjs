import assert from "node:assert/strict";
import test from "node:test";
import { BlockSplitter, splitBlocks } from "../../../src/chaku/web/static/markdown/blocks.js";

const TEXT = `# Title

A paragraph
in two lines.

- one

  more of one
- two

  \`\`\`py
  in a list

  still
  \`\`\`

After the list.
\`\`\`js title="x"
let a = "\`\`\`";

let b;
\`\`\`
1. first

2. second

$$
x

y
$$

| a | b |
|---|---|
| 1 | 2 |
`;

const shape = (text) => splitBlocks(text).map((b) => [b.kind, b.source.split("\n")[0]]);

test("blocks are cut at blank lines and fences, and never inside a list, a fence or TeX", () => {
  assert.deepEqual(shape(TEXT), [
    ["text", "# Title"],
    ["text", "A paragraph"],
    ["text", "- one"],
    ["text", "After the list."],
    ["code", 'let a = "```";'],
    ["text", "1. first"],
    ["text", "$$"],
    ["text", "| a | b |"],
  ]);
  assert.equal(splitBlocks(TEXT)[4].info, 'js title="x"');
});

test("text blocks and code together hold every character that is not a fence or a blank line", () => {
  const kept = splitBlocks(TEXT).map((b) => b.source).join("").replace(/\s+/g, "");
  const given = TEXT.replace(/^```.*$/gm, "").replace(/\s+/g, "");
  assert.equal(kept, given);
});

test("however the text arrives, the blocks are the same", () => {
  const whole = JSON.stringify(splitBlocks(TEXT));
  for (let seed = 1; seed <= 300; seed++) {
    const splitter = new BlockSplitter();
    let state = seed;
    for (let at = 0; at < TEXT.length; ) {
      state = (state * 1103515245 + 12345) % 2147483648;
      const n = 1 + (state % (seed % 20 + 1));
      splitter.push(TEXT.slice(at, at + n));
      at += n;
    }
    splitter.finish();
    assert.equal(JSON.stringify(splitter.blocks), whole, `seed ${seed}`);
  }
});

test("a block that is closed is never changed again, and push names the first that is", () => {
  const splitter = new BlockSplitter();
  const frozen = new Map();
  for (const character of TEXT) {
    const before = splitter.blocks.map((b) => b.source);
    const first = splitter.push(character);
    splitter.blocks.forEach((block, i) => {
      if (i < first) assert.equal(block.source, before[i]);
      if (frozen.has(i)) assert.equal(block.source, frozen.get(i));
      if (block.isClosed) frozen.set(i, block.source);
    });
  }
});

test("an open code block shows its last line unless that may be the closing fence", () => {
  const splitter = new BlockSplitter();
  splitter.push("```py\nx = 1\ny = ");
  assert.deepEqual([splitter.blocks[0].source, splitter.codeTail()], ["x = 1\n", "y = "]);
  splitter.push("2\n``");
  assert.deepEqual([splitter.blocks[0].source, splitter.codeTail()], ["x = 1\ny = 2\n", ""]);
  splitter.push("`\n");
  assert.equal(splitter.blocks[0].isClosed, true);
});

test("a fence that is never closed keeps its code, and its last line", () => {
  assert.deepEqual(splitBlocks("```\na\nb"), [{ kind: "code", source: "a\nb\n", info: "", isClosed: true }]);
});

test("inline code at the start of a line opens no fence", () => {
  assert.deepEqual(shape("```x``` is code\n\nnext"), [["text", "```x``` is code"], ["text", "next"]]);
});

test("20,000 lines of one code block are taken in within linear work", () => {
  const splitter = new BlockSplitter();
  splitter.push("```\n");
  for (let i = 0; i < 20_000; i++) splitter.push(`line ${i}\n`);
  assert.equal(splitter.blocks[0].source.split("\n").length, 20_001);
});
