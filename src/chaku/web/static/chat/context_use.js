/** How much of a model's context a chat and a draft take. What was said is counted by the model, the rest is estimated. */

/** @import {Message} from "../data/types.js" */
import { textOf } from "./tree.js";

const PER_MESSAGE = 4; // tokens that a template adds
const CHARACTERS_PER_TOKEN = 4; // of English

/** About how many tokens a text has. Letters beyond Latin ones are mostly one or more tokens each. @param {string} text */
export function estimate(text) {
  const num_wide = text.length - text.replace(/[^\u0000-\u024f]/g, "").length;
  return Math.ceil((text.length - num_wide) / CHARACTERS_PER_TOKEN + num_wide / 1.5);
}

/**
 * Tokens of what would be sent: those that the last answer's usage counts, and an estimate of the rest.
 * @param {Message[]} path
 * @param {string} system
 * @param {string} draft
 */
export function contextUse(path, system, draft) {
  const at = path.findLastIndex((message) => message.usage?.prompt_tokens);
  const usage = path[at]?.usage;
  const counted = usage ? (usage.prompt_tokens ?? 0) + (usage.completion_tokens ?? 0) : estimate(system);
  const rest = path.slice(at + 1).map((message) => textOf(message.content));
  return [...rest, draft].filter(Boolean).reduce((sum, text) => sum + estimate(text) + PER_MESSAGE, counted);
}
