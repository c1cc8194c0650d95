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

/**
 * The children of a message (null: the roots), oldest first.
 * @param {Map<string, Message>} messages
 * @param {string | null} parentId
 */
export function childrenOf(messages, parentId) {
  return [...messages.values()].filter((m) => (m.parent_id ?? null) === parentId).sort(byAge);
}

/**
 * A message among its alternatives: `index` counts from 0.
 * @param {Map<string, Message>} messages
 * @param {Message} message
 */
export function siblingsOf(messages, message) {
  const all = childrenOf(messages, message.parent_id ?? null).filter((m) => m.role === message.role);
  return { all, index: all.findIndex((m) => m.id === message.id) };
}

/**
 * The newest leaf below a message: where its branch was left.
 * @param {Map<string, Message>} messages
 * @param {string} id
 */
export function newestLeaf(messages, id) {
  const seen = new Set();
  for (;;) {
    if (seen.has(id)) return id;
    seen.add(id);
    const last = childrenOf(messages, id).at(-1);
    if (!last) return id;
    id = last.id;
  }
}

/** @param {Message} a @param {Message} b */
function byAge(a, b) {
  if (a.created_at !== b.created_at) return a.created_at < b.created_at ? -1 : 1;
  return a.id < b.id ? -1 : a.id > b.id ? 1 : 0;
}

/**
 * The text of a message, without its images.
 * @param {Message["content"]} content
 */
export function textOf(content) {
  if (typeof content === "string") return content;
  return (content ?? []).map((part) => (part.type === "text" ? part.text : "")).filter(Boolean).join("\n\n");
}

/**
 * The addresses of a message's images.
 * @param {Message["content"]} content
 */
export function imagesOf(content) {
  if (typeof content === "string") return [];
  return (content ?? []).flatMap((part) => (part.type === "image_url" ? [part.image_url.url] : []));
}
