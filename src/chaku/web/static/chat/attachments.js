/** Files that go with a message: pictures as data URLs, texts as quoted parts of their own. */

/** @import {Part} from "../data/types.js" */
import { textOf } from "./tree.js";

export const TEXT_LIMIT = 1_000_000; // bytes of a text, attached or pasted
export const LONG_PASTE = 6_000; // characters; a longer text becomes a file
const IMAGE_LIMIT = 8_000_000; // bytes; larger pictures are scaled down
const IMAGE_SIDE = 2_048; // pixels
const IMAGE_TYPES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);

/** @typedef {{name: string, image: string | null, text: string | null, isBare?: boolean}} Attachment  isBare: sent without its name and fence */

/**
 * A file as an attachment.
 * @param {File} file
 * @param {boolean} allowImages
 * @returns {Promise<Attachment>}
 * @throws {Error} saying why the file can't go with a message
 */
export async function attach(file, allowImages) {
  if (IMAGE_TYPES.has(file.type)) {
    if (!allowImages) throw new Error(`${file.name} is a picture, and this model reads text only. Choose a model that sees images.`);
    return { name: file.name, image: await imageUrl(file), text: null };
  }
  if (file.size > TEXT_LIMIT) throw tooLarge(file.name, file.size);
  const bytes = new Uint8Array(await file.arrayBuffer());
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (text.includes("\0")) throw new TypeError("a zero byte");
    return { name: file.name, image: null, text };
  } catch {
    throw new Error(`${file.name} is neither a picture (PNG, JPEG, GIF, WebP) nor text in UTF-8.`);
  }
}

/**
 * A long text that was pasted, as a file.
 * @param {string} text
 * @param {Attachment[]} others  that are attached already
 * @returns {Attachment}
 * @throws {Error} when it is too long
 */
export function attachPaste(text, others) {
  if (text.length > TEXT_LIMIT) throw tooLarge("The pasted text", text.length);
  const number = others.filter((file) => file.name.startsWith("pasted-")).length + 1;
  return { name: `pasted-${number}.txt`, image: null, text };
}

/** @param {string} name @param {number} size */
function tooLarge(name, size) {
  const format = (/** @type {number} */ bytes) => bytes.toLocaleString("en");
  return new Error(`${name} has ${format(size)} bytes; a text may have ${format(TEXT_LIMIT)}.`);
}

/** @param {File} file @returns {Promise<string>} */
async function imageUrl(file) {
  const picture = await createImageBitmap(file).catch(() => {
    throw new Error(`${file.name} is damaged: it can't be read as a picture.`);
  });
  const scale = Math.min(1, IMAGE_SIDE / Math.max(picture.width, picture.height));
  if (scale === 1 && file.size <= IMAGE_LIMIT) return dataUrl(file);
  const canvas = new OffscreenCanvas(Math.round(picture.width * scale), Math.round(picture.height * scale));
  canvas.getContext("2d")?.drawImage(picture, 0, 0, canvas.width, canvas.height);
  return dataUrl(await canvas.convertToBlob({ type: "image/jpeg", quality: 0.9 }));
}

/** @param {Blob} blob @returns {Promise<string>} */
function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(/** @type {string} */ (reader.result));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(blob);
  });
}

/**
 * What is sent: files as parts of their own, what was written last, pictures after it.
 * @param {string} text
 * @param {Attachment[]} attachments
 * @returns {string | Part[]}
 */
export function contentOf(text, attachments) {
  if (!attachments.length) return text;
  /** @type {Part[]} */
  const parts = [];
  for (const { name, text: body, isBare } of attachments) {
    if (body !== null) parts.push({ type: "text", text: isBare ? body : quoted(name, body) });
  }
  if (text || !parts.length) parts.push({ type: "text", text });
  for (const { image } of attachments) if (image) parts.push({ type: "image_url", image_url: { url: image } });
  return parts;
}

/** A file in a fence that its own text can't close. @param {string} name @param {string} body */
function quoted(name, body) {
  let longest = 2;
  for (const [run] of body.matchAll(/`+/g)) longest = Math.max(longest, run.length);
  const fence = "`".repeat(longest + 1);
  return `${name}:\n${fence}\n${body.replace(/\n$/, "")}\n${fence}\n\n`;
}

const QUOTED = /^([^\n]{1,300}):\n(`{3,})\n/;

/**
 * A message's content taken apart again: what was written, and what went with it.
 * @param {string | Part[] | null} content
 * @returns {{text: string, attachments: Attachment[]}}
 */
export function contentParts(content) {
  if (!Array.isArray(content)) return { text: textOf(content), attachments: [] };
  /** @type {Attachment[]} */
  const attachments = [];
  const texts = [];
  for (const part of content) {
    if (part.type === "image_url" && part.image_url?.url) attachments.push({ name: "picture", image: part.image_url.url, text: null });
    if (part.type !== "text") continue;
    const head = QUOTED.exec(part.text);
    const end = head && `\n${head[2]}\n\n`;
    if (head && end && part.text.endsWith(end) && part.text.length >= head[0].length + end.length) {
      attachments.push({ name: head[1], image: null, text: part.text.slice(head[0].length, -end.length) });
    } else texts.push(part.text);
  }
  return { text: texts.join("\n\n"), attachments };
}
