// Vercel's ai with @ai-sdk/openai-compatible: questions.py has the questions of the others.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const provider = createOpenAICompatible({
  name: "chaku",
  baseURL: process.env.CHAKU_BASE_URL,
  apiKey: "any",
  includeUsage: true,
  supportsStructuredOutputs: true,
});
const asking = { model: provider(process.env.CHAKU_MODEL), temperature: 0, maxOutputTokens: 300, maxRetries: 0 };
const user = (content) => ({ role: "user", content });

const messages = [user("What is the capital of France?")];
const first = await generateText({ ...asking, messages });
messages.push(...first.response.messages, user("In which country is it?"));
const second = await generateText({ ...asking, messages });
const stream = streamText({ ...asking, messages });
let streamed = "";
for await (const piece of stream.textStream) streamed += piece;
messages.push(...(await stream.response).messages, user("Describe it."));
const output = Output.object({ schema: z.object({ name: z.string(), country: z.string() }) });
const parsed = await generateText({ ...asking, messages, output });
const weather = tool({
  description: "Say what the weather in a city is.",
  inputSchema: z.object({ city: z.string() }),
  execute: async () => "sunny, 21 °C",
});
const told = await generateText({
  ...asking,
  messages: [user("What is the weather in Paris?")],
  tools: { weather },
  stopWhen: stepCountIs(2),
  prepareStep: ({ stepNumber }) => ({ toolChoice: stepNumber === 0 ? "required" : "auto" }),
});
console.log(
  JSON.stringify({
    first: first.text,
    second: second.text,
    streamed,
    parsed: parsed.output,
    called: told.steps[0].toolCalls[0].input,
    told: told.text,
  }),
);
