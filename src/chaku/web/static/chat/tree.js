/** A chat is a tree of messages; what is read is the path from its root to one leaf. */

/** @import {Message} from "../data/types.js" */

/**
 * The messages from the root to `leafId`. A parent that is missing, or a circle, ends the walk.
 * @param {Map<string, Message>} messages
 * @param {string | null | undefined} leafId
 * @returns {Message[]}
 */
export function pathTo(messages, leafId) {
  /** @type {Message[]} */
  const path = [];
  const seen = new Set();
  for (let id = leafId; id && !seen.has(id); ) {
    const message = messages.get(id);
    if (!message) break;
    seen.add(id);
    path.push(message);
    id = message.parent_id;
  }
  return path.reverse();
}

/** The messages of a chat by their parents; made anew when one is added. */
export class Branches {
  /** @param {Map<string, Message>} messages */
  constructor(messages) {
    /** @type {Map<string | null, Message[]>} */
    this._children = new Map();
    for (const message of messages.values()) {
      const parent = message.parent_id ?? null;
      const children = this._children.get(parent);
      if (children) children.push(message);
      else this._children.set(parent, [message]);
    }
    for (const children of this._children.values()) children.sort(byAge);
  }

  /**
   * A message among its alternatives: `index` counts from 0.
   * @param {Message} message
   */
  siblingsOf(message) {
    const all = (this._children.get(message.parent_id ?? null) ?? []).filter((m) => m.role === message.role);
    return { all, index: all.findIndex((m) => m.id === message.id) };
  }

  /** How many messages follow one, on all branches. @param {string} id */
  numBelow(id) {
    let number = 0;
    for (const waiting = [id]; waiting.length; ) {
      for (const child of this._children.get(/** @type {string} */ (waiting.pop())) ?? []) {
        number++;
        waiting.push(child.id);
      }
    }
    return number;
  }

  /**
   * The newest leaf below a message: where its branch was left.
   * @param {string} id
   */
  newestLeaf(id) {
    const seen = new Set();
    for (;;) {
      const last = this._children.get(id)?.at(-1);
      if (seen.has(id) || !last) return id;
      seen.add(id);
      id = last.id;
    }
  }
}

/** @param {Message} a @param {Message} b */
function byAge(a, b) {
  if (a.created_at !== b.created_at) return a.created_at < b.created_at ? -1 : 1;
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

/**
 * The text of a message, without its images.
 * @param {Message["content"] | null} content
 */
export function textOf(content) {
  if (typeof content === "string") return content;
  return partsOf(content).map((part) => (part.type === "text" ? part.text : "")).filter(Boolean).join("\n\n");
}

/**
 * The last text of a message: what was written, without the files that went with it.
 * @param {Message["content"]} content
 */
export function writtenText(content) {
  if (typeof content === "string") return content;
  return partsOf(content).flatMap((part) => (part.type === "text" ? [part.text] : [])).at(-1) ?? "";
}

/**
 * The addresses of a message's images.
 * @param {Message["content"]} content
 */
export function imagesOf(content) {
  if (typeof content === "string") return [];
  return partsOf(content).flatMap((part) => (part.type === "image_url" && part.image_url?.url ? [part.image_url.url] : []));
}

/** What an import brought may be of any shape. @param {unknown} content @returns {import("../data/types.js").Part[]} */
function partsOf(content) {
  return Array.isArray(content) ? content.filter((part) => part && typeof part === "object") : [];
}
