/** What new chats begin with, where the reader has chosen it; kept in this browser. */

/** @import {Settings} from "../data/types.js" */
/** @import {Conversation} from "./conversation.js" */
import { knownSettings } from "./records.js";

const KEY = "chaku.defaults";

/**
 * @typedef {object} Defaults
 * @property {string | null} model
 * @property {string | null} system  null: the model's; "": none
 * @property {Settings} settings
 */

/** @returns {Defaults | null} */
export function keptDefaults() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "null");
    if (!kept || typeof kept !== "object") return null;
    const text = (/** @type {unknown} */ value) => (typeof value === "string" ? value : null);
    return { model: text(kept.model), system: text(kept.system), settings: knownSettings(kept.settings ?? {}) };
  } catch {
    return null; // written by something else
  }
}

/** Let new chats begin as this one is set. @param {Conversation} conversation */
export function keepDefaults({ id, model, system, takesNoSystem, settings, defaults }) {
  const isTheModels = id ? system === defaults.system : !system && !takesNoSystem;
  localStorage.setItem(KEY, JSON.stringify({ model, system: isTheModels ? null : system, settings }));
}

export function forgetDefaults() {
  localStorage.removeItem(KEY);
}

/** @param {Conversation} conversation  a new one */
export function applyDefaults(conversation) {
  const kept = keptDefaults();
  if (!kept) return;
  conversation.model = kept.model;
  conversation.system = kept.system ?? "";
  conversation.takesNoSystem = kept.system === "";
  conversation.settings = kept.settings;
}
