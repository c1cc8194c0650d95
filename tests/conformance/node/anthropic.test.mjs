// Anthropic's official npm client against `chaku serve smollm2-135m` at CHAKU_URL.
import assert from "node:assert/strict";
import { test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

const client = new Anthropic({ baseURL: process.env.CHAKU_URL, apiKey: "any", maxRetries: 0 });
const france = {
  model: "smollm2-135m",
  max_tokens: 30,
  temperature: 0,
  system: "You are a helpful assistant.",
  messages: [{ role: "user", content: "What is the capital of France?" }],
};

test("the capital of France is Paris, whole and streamed", async () => {
  const whole = await client.messages.create(france);
  assert.match(whole.content[0].text, /Paris/);
  assert.equal(whole.stop_reason, "end_turn");
  let text = "";
  const stream = client.messages.stream(france).on("text", (delta) => (text += delta));
  const final = await stream.finalMessage();
  assert.equal(text, whole.content[0].text);
  assert.deepEqual(final.content, whole.content);
  assert.equal(final.usage.output_tokens, whole.usage.output_tokens);
});

test("the stop sequence is named, and counting agrees with the answer's counts", async () => {
  const stopped = await client.messages.create({ ...france, stop_sequences: [" of"] });
  assert.deepEqual([stopped.content[0].text, stopped.stop_reason, stopped.stop_sequence], ["The capital", "stop_sequence", " of"]);
  const { model, system, messages } = france;
  const counted = await client.messages.countTokens({ model, system, messages });
  assert.equal(counted.input_tokens, stopped.usage.input_tokens + stopped.usage.cache_read_input_tokens);
});

test("a field that can't be honoured is a BadRequestError that names it", async () => {
  await assert.rejects(client.messages.create({ ...france, container: "c" }), (error) => {
    assert.ok(error instanceof Anthropic.BadRequestError);
    assert.match(error.message, /container/);
    return true;
  });
});
