/** The chat that is on the screen as a call that anyone can make: curl and Python. */

/** @import {Message, Settings} from "../data/types.js" */
import { textOf, imagesOf } from "./tree.js";

/**
 * The body of the request that would be sent for this chat. Images are named, not spelled out.
 * @param {{model: string, system: string, settings: Settings, path: Message[]}} chat
 */
export function requestBody({ model, system, settings, path }) {
  const messages = path
    .filter((message) => message.role !== "system" && message.state !== "failed")
    .map(({ role, content }) => ({ role, content: shortened(content) }));
  if (messages.at(-1)?.role === "assistant") messages.pop(); // what would be asked, not what was answered
  if (!messages.length) messages.push({ role: "user", content: "Hello" });
  const head = system.trim() ? [{ role: "system", content: system }] : [];
  return { model, messages: [...head, ...messages], ...settings };
}

/** @param {Message["content"]} content */
function shortened(content) {
  const images = imagesOf(content);
  if (!images.length) return textOf(content);
  return [
    { type: "text", text: textOf(content) },
    ...images.map(() => ({ type: "image_url", image_url: { url: "data:image/png;base64,…" } })),
  ];
}

/**
 * @param {string} origin
 * @param {object} body
 * @param {boolean} needsKey
 */
export function asCurl(origin, body, needsKey) {
  const json = JSON.stringify({ ...body, stream: true }, null, 2).replaceAll("'", "'\\''");
  const key = needsKey ? ` \\\n  -H "Authorization: Bearer $CHAKU_API_KEY"` : "";
  return `curl -N ${origin}/v1/chat/completions${key} \\\n  -H 'Content-Type: application/json' \\\n  -d '${json}'`;
}

/** Fields that the OpenAI client takes only in `extra_body`. */
const EXTRA = new Set(["top_k", "min_p", "repetition_penalty"]);

/**
 * @param {string} origin
 * @param {Record<string, unknown>} body
 * @param {boolean} needsKey
 */
export function asPython(origin, body, needsKey) {
  const extra = Object.fromEntries(Object.entries(body).filter(([name]) => EXTRA.has(name)));
  const plain = Object.entries(body).filter(([name]) => !EXTRA.has(name));
  if (Object.keys(extra).length) plain.push(["extra_body", extra]);
  const key = needsKey ? 'os.environ["CHAKU_API_KEY"]' : '"none"';
  const fields = plain.map(([name, value]) => `    ${name}=${pythonValue(value, 4)},`).join("\n");
  return `${needsKey ? "import os\n\n" : ""}from openai import OpenAI

client = OpenAI(base_url="${origin}/v1", api_key=${key})
stream = client.chat.completions.create(
${fields}
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)`;
}

/**
 * A JSON value as Python writes it.
 * @param {unknown} value
 * @param {number} indent
 * @returns {string}
 */
export function pythonValue(value, indent = 0) {
  if (value === null || value === undefined) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (typeof value === "string") return JSON.stringify(value);
  const pad = " ".repeat(indent + 4);
  const end = " ".repeat(indent);
  if (Array.isArray(value)) {
    if (value.every((item) => typeof item !== "object")) return `[${value.map((v) => pythonValue(v)).join(", ")}]`;
    return `[\n${value.map((v) => `${pad}${pythonValue(v, indent + 4)},\n`).join("")}${end}]`;
  }
  if (typeof value === "object") {
    const pairs = Object.entries(value).map(([k, v]) => `${JSON.stringify(k)}: ${pythonValue(v, indent + 4)}`);
    return `{${pairs.join(", ")}}`;
  }
  return String(value);
}
