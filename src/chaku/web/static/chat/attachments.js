/** Files that go with a message: pictures as data URLs, text files as quoted text. */

/** @import {Part} from "../data/types.js" */

const TEXT_LIMIT = 400_000; // bytes
const IMAGE_LIMIT = 8_000_000; // bytes; larger pictures are scaled down
const IMAGE_SIDE = 2_048; // pixels
const IMAGE_TYPES = new Set(["image/png", "image/jpeg", "image/gif", "image/webp"]);

/** @typedef {{name: string, image: string | null, text: string | null}} Attachment */

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
  if (file.size > TEXT_LIMIT) throw new Error(`${file.name} has ${file.size} bytes; text files may have ${TEXT_LIMIT}.`);
  const bytes = new Uint8Array(await file.arrayBuffer());
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    if (text.includes("\0")) throw new TypeError("a zero byte");
    return { name: file.name, image: null, text };
  } catch {
    throw new Error(`${file.name} is neither a picture (PNG, JPEG, GIF, WebP) nor text in UTF-8.`);
  }
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
 * What is sent: the text, quoted files before it, pictures beside it.
 * @param {string} text
 * @param {Attachment[]} attachments
 * @returns {string | Part[]}
 */
export function contentOf(text, attachments) {
  const files = attachments.flatMap(({ name, text: body }) => (body === null ? [] : [quoted(name, body)]));
  const whole = [...files, text].filter(Boolean).join("\n\n");
  const images = attachments.flatMap(({ image }) => (image ? [image] : []));
  if (!images.length) return whole;
  return [
    { type: "text", text: whole },
    ...images.map((url) => /** @type {Part} */ ({ type: "image_url", image_url: { url } })),
  ];
}

/** A file in a fence that its own text can't close. @param {string} name @param {string} body */
function quoted(name, body) {
  const longest = Math.max(2, ...[...body.matchAll(/`+/g)].map((run) => run[0].length));
  const fence = "`".repeat(longest + 1);
  return `${name}:\n${fence}\n${body.replace(/\n$/, "")}\n${fence}`;
}
