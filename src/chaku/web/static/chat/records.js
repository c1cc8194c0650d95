/** What of a chat is worked out here: the title it begins with, the settings that are understood. */

/** @import {Model, Part, Settings} from "../data/types.js" */
import { writtenText } from "./tree.js";

const TITLE_LENGTH = 60; // characters

/** A chat is called by the first line that was written, not by the files that went with it. @param {string | Part[]} content */
export function titleOf(content) {
  const line = writtenText(content).split("\n").find((text) => text.trim()) ?? "";
  const text = line.trim().replace(/\s+/g, " ");
  if (text.length <= TITLE_LENGTH) return text;
  const cut = text.slice(0, TITLE_LENGTH - 1);
  return `${cut.slice(0, Math.max(cut.lastIndexOf(" "), TITLE_LENGTH / 2))}…`;
}

const NAMES = new Set([
  ...["temperature", "top_p", "top_k", "min_p", "max_tokens", "repetition_penalty"],
  ...["presence_penalty", "frequency_penalty", "seed", "stop"],
]);

/** Settings of the kinds that the page can show; what an import brought beside them stays out. @param {any} settings @returns {Settings} */
export function knownSettings(settings) {
  const known = Object.entries(settings).map(([name, value]) => [name, name === "stop" && typeof value === "string" ? [value] : value]);
  const isKnown = (/** @type {any} */ value) => typeof value === "number" || Array.isArray(value);
  return Object.fromEntries(known.filter(([name, value]) => NAMES.has(name) && isKnown(value)));
}

/** The settings that differ from what the model's makers advise. @param {Settings} settings @param {Settings} defaults @returns {Settings} */
export function withoutDefaults(settings, defaults) {
  const same = (/** @type {string} */ name) => JSON.stringify(defaults[name]) === JSON.stringify(settings[name]);
  return Object.fromEntries(Object.entries(settings).filter(([name]) => !same(name)));
}

/**
 * Whether a model takes images.
 * @param {Model | undefined} model
 */
export function takesImages(model) {
  return (model?.capabilities ?? []).some((name) => name === "vision" || name === "images" || name === "image_input");
}
