import assert from "node:assert/strict";
import test from "node:test";
import * as format from "../../../src/chaku/web/static/ui/format.js";
import { asCurl, asPython, pythonValue, requestBody } from "../../../src/chaku/web/static/chat/request_code.js";

test("what stands under an answer names tokens, speed, first token and an end that was not the model's own", () => {
  const message = {
    usage: { completion_tokens: 1412 },
    timings: { first_token_s: 0.213, tokens_per_s: 58.04 },
    state: "stopped",
    finish_reason: "length",
  };
  assert.deepEqual(format.answerFacts(message), [
    "1,412 tokens", "58.0 tokens/s", "first token 0.21 s", "stopped", "stopped at the token limit",
  ]);
  const failed = { usage: { completion_tokens: 0 }, timings: null, state: "failed", finish_reason: null };
  assert.deepEqual(format.answerFacts(failed), []);
  assert.deepEqual(format.answerFacts({ usage: null, timings: null, state: "complete", finish_reason: "stop" }), []);
  const held = { usage: null, timings: null, state: "complete", finish_reason: "content_filter" };
  assert.deepEqual(format.answerFacts(held), ["held back by moderation"]);
});

test("a model's state is said in words", () => {
  const model = (fields) => format.modelState({ id: "m", state: "ready", ...fields });
  assert.deepEqual(model({}), { kind: "ready", text: "ready" });
  assert.deepEqual(model({ waiting: 3, running: 4 }), { kind: "busy", text: "busy, 3 in line" });
  assert.deepEqual(model({ state: "loading", progress: 0.425 }), { kind: "loading", text: "loading 43 %" });
  assert.deepEqual(model({ state: "failed", detail: "out of memory" }), { kind: "down", text: "failed: out of memory" });
});

test("chats stand under the day they were last used, pinned ones first", () => {
  const now = new Date(2026, 10, 22, 15);
  const chat = (id, day, pinned = false) => ({ id, pinned, updated_at: new Date(2026, 10, day, 12).toISOString() });
  const groups = format.byDay([chat("p", 1, true), chat("a", 22), chat("b", 21), chat("c", 18), chat("d", 2)], now);
  assert.deepEqual(groups.map((g) => [g.name, g.chats[0].id]), [
    ["Pinned", "p"], ["Today", "a"], ["Yesterday", "b"], ["Last 7 days", "c"], ["November 2026", "d"],
  ]);
});

test("characters that turn the reading direction are shown, marks that Arabic and Hebrew need are kept", () => {
  assert.equal(format.withVisibleControls("a\u202eb\u2066c\u200f"), "a⟨U+202E⟩b⟨U+2066⟩c\u200f");
});

test("numbers are short and have their unit", () => {
  assert.deepEqual([format.seconds(0.2134), format.seconds(42), format.seconds(90)], ["0.21 s", "42.0 s", "1 min 30 s"]);
  assert.deepEqual([format.shortTokens(8192), format.shortTokens(131072), format.shortTokens(512), format.shortTokens(1_048_576)], ["8k", "128k", "512", "1.0M"]);
  assert.deepEqual([format.count(1, "token"), format.count(1234, "token")], ["1 token", "1,234 tokens"]);
});

const path = [
  { role: "user", content: "It's \"me\"", state: "complete" },
  { role: "assistant", content: "Hi", state: "complete" },
];

test("the call in code asks what the chat asked, with its settings and no default", () => {
  const body = requestBody({ model: "m", system: "Be brief.", settings: { top_k: 5, temperature: 0.2, stop: ["\n"] }, path });
  assert.deepEqual(body, {
    model: "m",
    messages: [{ role: "system", content: "Be brief." }, { role: "user", content: "It's \"me\"" }],
    top_k: 5,
    temperature: 0.2,
    stop: ["\n"],
  });
  const curl = asCurl("http://h", body, true);
  assert.ok(curl.includes("It'\\''s") && curl.includes("Bearer $CHAKU_API_KEY"));
  const python = asPython("http://h", body, false);
  assert.ok(python.includes('extra_body={"top_k": 5},') && python.includes("temperature=0.2,"));
});

test("values are written as Python writes them", () => {
  assert.equal(pythonValue({ a: true, b: null, c: [1, "x"] }), '{"a": True, "b": None, "c": [1, "x"]}');
});

test("how long ago reads as people say it, and after a week as a date", () => {
  const now = new Date(2026, 10, 28, 10, 30);
  const at = (...parts) => format.ago(new Date(2026, 10, ...parts), now);
  assert.equal(at(28, 10, 29, 30), "just now");
  assert.equal(at(28, 10, 25), "5 minutes ago");
  assert.equal(at(28, 7, 0), "3 hours ago");
  assert.equal(at(27, 23, 0), "yesterday");
  assert.equal(at(25, 9, 0), "3 days ago");
  assert.equal(at(1, 9, 0), "Nov 1, 2026");
  assert.equal(at(29, 9, 0), "Nov 29, 2026"); // a clock that is ahead
});
