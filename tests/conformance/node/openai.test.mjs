// The official npm client against `chaku serve smollm2-135m` at CHAKU_BASE_URL: what it can ask for, it gets.
import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

const model = "smollm2-135m";
const client = new OpenAI({ baseURL: process.env.CHAKU_BASE_URL, apiKey: "any", maxRetries: 0 });
const france = {
  model,
  temperature: 0,
  messages: [
    { role: "system", content: "You are a helpful assistant." },
    { role: "user", content: "What is the capital of France?" },
  ],
};

test("the capital of France is Paris", async () => {
  const answer = await client.chat.completions.create(france);
  assert.match(answer.choices[0].message.content, /Paris/);
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test("the capital of France is Paris, streamed, with usage at the end", async () => {
  const stream = await client.chat.completions.create({
    ...france,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  const text = chunks.map((chunk) => chunk.choices[0]?.delta?.content ?? "").join("");
  assert.match(text, /Paris/);
  assert.equal(chunks[0].choices[0].delta.role, "assistant");
  assert.equal(chunks.at(-2).choices[0].finish_reason, "stop");
  assert.deepEqual(chunks.at(-1).choices, []);
  assert.ok(chunks.at(-1).usage.completion_tokens > 4);
  const whole = await client.chat.completions.create(france);
  assert.equal(text, whole.choices[0].message.content);
});

test("the stream helper's events add up to its final completion", async () => {
  const seen = { chunk: 0, content: 0, end: 0, text: "" };
  const runner = client.chat.completions
    .stream({ ...france, stream_options: { include_usage: true } })
    .on("chunk", () => (seen.chunk += 1))
    .on("content", (delta) => {
      seen.content += 1;
      seen.text += delta;
    })
    .on("end", () => (seen.end += 1));
  const final = await runner.finalChatCompletion();
  await runner.done();
  assert.ok(seen.chunk > seen.content && seen.content > 3);
  assert.equal(seen.end, 1);
  assert.equal(seen.text, final.choices[0].message.content);
  assert.match(seen.text, /Paris/);
  assert.equal(final.choices[0].finish_reason, "stop");
  assert.ok((await runner.totalUsage()).completion_tokens > 4);
});

test("a stream that is left ends at once and the next request is served", async () => {
  const stream = await client.chat.completions.create({ ...france, max_tokens: 500, ignore_eos: true, stream: true });
  for await (const chunk of stream) {
    if (chunk.choices[0].delta.content) break;
  }
  assert.match((await client.chat.completions.create(france)).choices[0].message.content, /Paris/);
});

test("a refusal is the client's own error, with param and code", async () => {
  await assert.rejects(client.chat.completions.create({ ...france, temprature: 1 }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.equal(error.param, "temprature");
    assert.equal(error.code, "unknown_parameter");
    return true;
  });
  await assert.rejects(client.chat.completions.create({ ...france, model: "gpt-5" }), OpenAI.NotFoundError);
});

test("embeddings, completions and models answer too", async () => {
  const { data } = await client.embeddings.create({ model, input: ["one", "two"] });
  assert.equal(data.length, 2);
  assert.ok(Math.abs(data[0].embedding.reduce((sum, x) => sum + x * x, 0) - 1) < 1e-3);
  const text = await client.completions.create({ model, prompt: "The capital of France is", temperature: 0, max_tokens: 8 });
  assert.match(text.choices[0].text, /Paris/);
  const names = [];
  for await (const one of client.models.list()) names.push(one.id);
  assert.deepEqual(names, [model]);
});

test("a conversation goes on with the helpers' own messages", async () => {
  const messages = [...france.messages];
  const ask = { model, temperature: 0, max_completion_tokens: 30 };
  messages.push((await client.chat.completions.create({ ...ask, messages })).choices[0].message);
  messages.push({ role: "user", content: "And of Spain?" });
  messages.push(await client.chat.completions.stream({ ...ask, messages }).finalMessage());
  messages.push({ role: "user", content: "Thank you." });
  const last = await client.chat.completions.create({ ...ask, messages });
  assert.ok(last.choices[0].message.content);
});
