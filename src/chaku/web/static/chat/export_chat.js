/** One chat as a file to read: Markdown, or an HTML page that stands alone. What is exported is the branch that is open. */

/** @import {Chat, Message} from "../data/types.js" */
import { get } from "../data/api.js";
import { inBackground } from "../markdown/background.js";
import { languageOf } from "../markdown/blocks.js";
import { spanOf } from "../markdown/code_view.js";
import { mathmlOf } from "../markdown/math.js";
import { nextSlice } from "../markdown/slices.js";
import { openPiece } from "../markdown/text_view.js";
import { withVisibleControls } from "../ui/format.js";
import { STYLE } from "./export_style.js";
import { imagesOf, pathTo, textOf } from "./tree.js";

const IMAGE = /^data:image\/(png|jpeg|gif|webp);base64,[a-z0-9+/=]+$/i;

/**
 * @param {string} id  of a chat
 * @param {"md" | "html"} format
 * @returns {Promise<Blob>}
 */
export async function exported(id, format) {
  const chat = await get(`/chats/${id}`);
  return format === "md"
    ? new Blob([asMarkdown(chat)], { type: "text/markdown" })
    : new Blob([await asHtml(chat)], { type: "text/html" });
}

/** @param {Chat} chat */
function pathOf(chat) {
  return pathTo(new Map((chat.messages ?? []).map((message) => [message.id, message])), chat.leaf_id);
}

/** @param {Message} message */
function speakerOf({ role, model, extra }) {
  if (role === "user") return "You";
  if (role === "assistant") return model || "Assistant";
  return role === "tool" ? `Tool result${extra?.name ? `: ${extra.name}` : ""}` : "System message";
}

/** @param {Message} message @returns {string[]} */
function callsOf({ extra }) {
  return Array.isArray(extra?.tool_calls) ? extra.tool_calls.map((call) => JSON.stringify(call?.function ?? call, null, 2)) : [];
}

/** @param {Message} message */
function timeOf({ created_at }) {
  return new Date(created_at).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
}

/** @param {Chat} chat */
export function asMarkdown(chat) {
  const parts = [`# ${chat.title || "Chat"}`];
  if (chat.system) parts.push("## System prompt", chat.system);
  for (const message of pathOf(chat)) {
    parts.push(`## ${speakerOf(message)}`, `*${timeOf(message)}*`);
    if (message.reasoning) parts.push(`<details><summary>Reasoning</summary>\n\n${message.reasoning}\n\n</details>`);
    parts.push(...imagesOf(message.content).map((url) => `![image](${url})`));
    parts.push(textOf(message.content), ...callsOf(message).map(fenced));
    if (message.error) parts.push(`*No answer came: ${message.error.message}*`);
  }
  return `${parts.filter(Boolean).join("\n\n")}\n`;
}

/** Code in a fence that is longer than any in it. @param {string} code */
function fenced(code) {
  const fence = "`".repeat(Math.max(3, ...[...code.matchAll(/`+/g)].map(([ticks]) => ticks.length + 1)));
  return `${fence}json\n${code}\n${fence}`;
}

/** @param {Chat} chat */
export async function asHtml(chat) {
  const body = element("body");
  const title = withVisibleControls(chat.title || "Chat");
  body.append(element("h1", title));
  if (chat.system) body.append(folded("System prompt", chat.system));
  for (const message of pathOf(chat)) {
    body.append(await article(message));
    await nextSlice();
  }
  const policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:";
  const head = `<meta charset="utf-8"><meta name="viewport" content="width=device-width"><meta http-equiv="Content-Security-Policy" content="${policy}">`;
  return `<!doctype html><html lang="en"><head>${head}${written(element("title", title))}<style>${STYLE}</style></head>${written(body)}</html>\n`;
}

/** @param {Node} node */
function written(node) {
  return new XMLSerializer().serializeToString(node);
}

/** @param {Message} message */
async function article(message) {
  const root = element("article");
  root.className = message.role;
  const head = element("h2", withVisibleControls(speakerOf(message)));
  head.append(" ", element("small", timeOf(message)));
  root.append(head);
  if (message.reasoning) root.append(folded("Reasoning", message.reasoning));
  for (const url of imagesOf(message.content)) root.append(picture(url));
  const text = textOf(message.content);
  if (message.role === "assistant") root.append(await prose(text));
  else if (text) root.append(plain(text));
  for (const call of callsOf(message)) root.append(folded("Tool call", call));
  if (message.error) root.append(element("p", `No answer came: ${withVisibleControls(message.error.message)}`));
  return root;
}

/** What a model wrote, as the page draws it. @param {string} source */
async function prose(source) {
  const read = await inBackground({ kind: "markdown", source, env: {} });
  if (!read) return plain(source); // too tangled to be drawn
  const root = element("div");
  root.className = "prose";
  for (const piece of read.pieces) {
    const { from, to } = openPiece(root, piece);
    const added = [...from.childNodes];
    to.append(...added);
    await nextSlice();
  }
  for (const pre of root.querySelectorAll("pre[data-info]")) pre.replaceWith(await code(/** @type {HTMLElement} */ (pre)));
  for (const place of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll(".math[data-tex]"))) {
    const isDisplay = place.dataset.display === "1";
    place.replaceChildren(await mathmlOf(place.dataset.tex ?? "", isDisplay));
    place.classList.toggle("display", isDisplay);
    await nextSlice();
  }
  return root;
}

/** @param {HTMLElement} pre */
async function code(pre) {
  const source = pre.textContent ?? "";
  const info = pre.dataset.info ?? "";
  const spans = await inBackground({ kind: "code", code: source, info });
  const figure = element("figure");
  const inner = element("code");
  if (spans) for (let i = 0; i < spans.length; i += 2) inner.append(spans[i + 1] ? spanOf(spans[i], spans[i + 1]) : spans[i]);
  else inner.append(withVisibleControls(source));
  const frame = element("pre");
  frame.append(inner);
  figure.append(element("figcaption", withVisibleControls(languageOf(info)) || "text"), frame);
  return figure;
}

/** @param {string} name @param {string} text */
function folded(name, text) {
  const details = element("details");
  details.append(element("summary", name), plain(text));
  return details;
}

/** @param {string} text */
function plain(text) {
  const root = element("div", withVisibleControls(text));
  root.className = "plain";
  root.dir = "auto";
  return root;
}

/** @param {string} url */
function picture(url) {
  if (!IMAGE.test(url)) return element("p", `image: ${withVisibleControls(url.slice(0, 200))}`);
  const image = document.createElement("img");
  image.src = url;
  image.alt = "Sent with the message";
  return image;
}

/** @param {string} tag @param {string} [text] */
function element(tag, text = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  return made;
}
