import assert from "node:assert/strict";
import test from "node:test";
import { contextUse, estimate } from "../../../src/chaku/web/static/chat/context_use.js";

const message = (content, usage) => ({ content, usage });

test("an estimate grows with the text, and faster for scripts whose letters are tokens of their own", () => {
  assert.equal(estimate(""), 0);
  assert.equal(estimate("a".repeat(400)), 100);
  assert.equal(estimate("語".repeat(300)), 200);
  assert.ok(estimate("naïve café".repeat(10)) <= 25);
});

test("what the last answer counted is not estimated again", () => {
  const path = [message("x".repeat(9000)), message("y", { prompt_tokens: 900, completion_tokens: 100 })];
  assert.equal(contextUse(path, "z".repeat(4000), ""), 1000);
  assert.equal(contextUse([...path, message("w".repeat(40))], "", "d".repeat(80)), 1000 + 10 + 4 + 20 + 4);
});

test("without a count everything is estimated", () => {
  assert.equal(contextUse([message("x".repeat(40)), message("", {})], "s".repeat(40), ""), 10 + 10 + 4);
});
