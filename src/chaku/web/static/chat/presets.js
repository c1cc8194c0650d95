/** System prompts and sampling to begin with, and the reader's own, which stay in this browser. */

/** @import {Settings} from "../data/types.js" */
import { knownSettings } from "./records.js";

/** @typedef {{name: string, text: string, settings?: Settings}} Preset  without settings it leaves the sampling as it is */

const KEY = "chaku.presets";

/** @type {Preset[]} */
export const BUILT_IN = [
  { name: "Brief", text: "Answer in as few words as the question allows. No preamble and no summary." },
  { name: "Step by step", text: "Work through the problem in numbered steps, then give the result on a line of its own." },
  { name: "Code reviewer", text: "You review code. Name each defect with its line, why it is one, and the smallest change that mends it." },
  { name: "Translator", text: "Translate what the user writes into English. Keep tone, names and formatting. Say nothing else." },
];

/** @returns {Preset[]} */
export function ownPresets() {
  try {
    const kept = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    const own = Array.isArray(kept) ? kept.filter((p) => typeof p?.name === "string" && typeof p?.text === "string") : [];
    return own.map(({ name, text, settings }) => ({ name, text, ...(settings && { settings: knownSettings(settings) }) }));
  } catch {
    return []; // written by something else
  }
}

/** @param {Preset[]} presets */
export function keepPresets(presets) {
  localStorage.setItem(KEY, JSON.stringify(presets));
}
