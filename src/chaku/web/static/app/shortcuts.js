/** The page's keys, in one table: what it shows under `?` is what it does. */

export const IS_MAC = /Mac|iPhone|iPad/.test(navigator.platform);

/** @typedef {"search" | "new" | "settings" | "composer" | "model" | "copy" | "shortcuts"} Command */

/** @type {{command: Command, key: string, ctrl?: boolean, shift?: boolean, what: string}[]} */
export const COMMANDS = [
  { command: "new", key: "o", ctrl: true, shift: true, what: "New chat" },
  { command: "search", key: "k", ctrl: true, what: "Search chats" },
  { command: "model", key: "m", ctrl: true, shift: true, what: "Choose a model" },
  { command: "settings", key: ",", ctrl: true, what: "Chat settings" },
  { command: "copy", key: "c", ctrl: true, shift: true, what: "Copy the last answer" },
  { command: "composer", key: "/", what: "Go to the message field" },
  { command: "shortcuts", key: "?", what: "This list" },
];

/**
 * The command of a key press, if it is one. Plain keys are left to fields that are being written in.
 * @param {KeyboardEvent} event
 * @returns {Command | null}
 */
export function commandOf(event) {
  if (event.isComposing || event.altKey) return null;
  const isWriting = /** @type {HTMLElement} */ (event.target).matches?.("input, textarea, select, [contenteditable]");
  const hasCtrl = IS_MAC ? event.metaKey : event.ctrlKey;
  const found = COMMANDS.find(({ key, ctrl = false, shift = false }) => {
    if (ctrl) return hasCtrl && event.shiftKey === shift && event.key.toLowerCase() === key;
    return !isWriting && !event.ctrlKey && !event.metaKey && event.key === key;
  });
  return found?.command ?? null;
}
