/** What was written and not sent yet, kept in this browser: it outlives another chat, a reload and a message that failed. */

/** @import {Attachment} from "./attachments.js" */

/** @typedef {{text: string, files: Attachment[]}} Draft */

const PREFIX = "chaku.draft.";
const FILES_LIMIT = 1_500_000; // characters in the browser's store, which holds about five million; more stays in memory

/** @type {Map<string, Draft>} */
const drafts = new Map();

/** @param {string} key  the chat's id, or "new" @returns {Draft} */
export function draftOf(key) {
  return drafts.get(key) ?? { text: read(`${PREFIX}${key}`, ""), files: read(`${PREFIX}${key}.files`, []) };
}

/** @param {string} key @param {Draft} draft */
export function keepDraft(key, draft) {
  const before = drafts.get(key);
  drafts.set(key, draft);
  write(`${PREFIX}${key}`, draft.text || null);
  if (before?.files !== draft.files) write(`${PREFIX}${key}.files`, draft.files.length ? draft.files : null);
}

/** @template T @param {string} name @param {T} otherwise @returns {T} */
function read(name, otherwise) {
  try {
    const kept = JSON.parse(localStorage.getItem(name) ?? "null");
    return typeof kept === typeof otherwise && Array.isArray(kept) === Array.isArray(otherwise) && kept !== null ? kept : otherwise;
  } catch {
    return otherwise; // written by something else
  }
}

/** @param {string} name @param {unknown} value  null takes it away */
function write(name, value) {
  const text = value === null ? "" : JSON.stringify(value);
  try {
    if (!text || text.length > FILES_LIMIT) localStorage.removeItem(name);
    else localStorage.setItem(name, text);
  } catch {
    // the store is full: this page still has it in memory
  }
}
