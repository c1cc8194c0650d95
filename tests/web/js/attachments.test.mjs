import assert from "node:assert/strict";
import test from "node:test";
import { contentOf, contentParts } from "../../../src/chaku/web/static/chat/attachments.js";

const file = (name, text) => ({ name, image: null, text });

test("what was written and the files with it come out of a message as they went in, whatever they hold", () => {
  const texts = ["x = 1\n", "", "```", "a\n````\nb", "`".repeat(200_000), "name:\n```\n\n```\n\n", "a.py:\n```\nx\n```"];
  for (const text of texts) {
    const parts = contentParts(contentOf("Why?", [file("a b.py", text), file("b.txt", "two")]));
    assert.equal(parts.text, "Why?");
    assert.deepEqual(parts.attachments.map((a) => [a.name, a.text]), [["a b.py", text.replace(/\n$/, "")], ["b.txt", "two"]]);
  }
});

test("a text alone stays a text, and pictures follow it", () => {
  assert.equal(contentOf("Hi", []), "Hi");
  assert.deepEqual(contentOf("", [{ name: "p", image: "data:x", text: null }]), [
    { type: "text", text: "" },
    { type: "image_url", image_url: { url: "data:x" } },
  ]);
});

test("parts that a stranger wrote break nothing", () => {
  const odd = [{ type: "image_url" }, { type: "image_url", image_url: {} }, { type: "audio" }, { type: "text", text: "x" }];
  assert.deepEqual(contentParts(odd), { text: "x", attachments: [] });
  assert.deepEqual(contentParts(null), { text: "", attachments: [] });
});
