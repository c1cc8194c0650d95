/** Numbers, times and characters as people read them. */

/** @import {Chat, Message, Model} from "../data/types.js" */

const NUMBER = new Intl.NumberFormat("en");

/** @param {number} n @param {string} noun */
export function count(n, noun) {
  return `${NUMBER.format(n)} ${noun}${n === 1 ? "" : "s"}`;
}

/** @param {number} s  seconds */
export function seconds(s) {
  if (s < 10) return `${s.toFixed(2)} s`;
  if (s < 60) return `${s.toFixed(1)} s`;
  return `${Math.floor(s / 60)} min ${Math.round(s % 60)} s`;
}

/** Tokens as 8,192 → "8k". @param {number} n */
export function shortTokens(n) {
  if (n < 1024) return String(n);
  const thousands = n % 1024 === 0 ? n / 1024 : n / 1000;
  return thousands < 1000 ? `${Math.round(thousands)}k` : `${(thousands / 1000).toFixed(1)}M`;
}

const MINUTE_S = 60;
const HOUR_S = 3_600;
const DAY_S = 86_400;
const RELATIVE = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

/** How long ago: "just now", "5 minutes ago", "yesterday"; after a week the date. @param {Date} time @param {Date} now */
export function ago(time, now) {
  const s = (now.getTime() - time.getTime()) / 1000;
  if (s < -MINUTE_S || s >= 7 * DAY_S) return time.toLocaleDateString("en", { dateStyle: "medium" });
  if (s < MINUTE_S) return "just now";
  if (s < HOUR_S) return RELATIVE.format(-Math.floor(s / MINUTE_S), "minute");
  const days = Math.round((new Date(now).setHours(0, 0, 0, 0) - new Date(time).setHours(0, 0, 0, 0)) / (1000 * DAY_S));
  return days ? RELATIVE.format(-days, "day") : RELATIVE.format(-Math.floor(s / HOUR_S), "hour");
}

/** @type {Record<string, string>} */
const FINISH = { length: "stopped at the token limit", content_filter: "held back by moderation", tool_calls: "tool call", edited: "edited" };

/**
 * What stands under an answer: tokens, speed, time to the first token, why it ended if not by itself.
 * @param {Message} message
 * @returns {string[]}
 */
export function answerFacts(message) {
  const { usage, timings, state } = message;
  const facts = [];
  if (usage?.completion_tokens) facts.push(count(usage.completion_tokens, "token"));
  if (timings?.tokens_per_s) {
    const rate = timings.tokens_per_s;
    facts.push(`${rate >= 100 ? NUMBER.format(Math.round(rate)) : rate.toFixed(1)} tokens/s`);
  }
  if (timings?.first_token_s != null) facts.push(`first token ${seconds(timings.first_token_s)}`);
  if (state === "stopped") facts.push("stopped");
  const ended = FINISH[message.finish_reason ?? ""];
  if (ended) facts.push(ended);
  return facts;
}

/**
 * A model's state in a few words, and the kind of its dot.
 * @param {Model} model
 * @returns {{kind: "ready" | "busy" | "loading" | "down", text: string}}
 */
export function modelState(model) {
  if (model.state === "ready") {
    if (model.waiting) return { kind: "busy", text: `busy, ${model.waiting} in line` };
    return { kind: "ready", text: model.running ? `ready, ${model.running} running` : "ready" };
  }
  if (["loading", "restarting", "starting"].includes(model.state)) {
    const percent = model.progress != null ? ` ${Math.round(model.progress * 100)} %` : "";
    return { kind: "loading", text: model.state + percent };
  }
  return { kind: "down", text: model.detail ? `${model.state}: ${model.detail}` : model.state };
}

/**
 * Chats in groups: pinned, then by the day they were last used.
 * @param {Chat[]} chats
 * @param {Date} now
 * @returns {{name: string, chats: Chat[]}[]}
 */
export function byDay(chats, now) {
  const midnight = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  const day = 86_400_000;
  /** @type {Map<string, Chat[]>} */
  const groups = new Map();
  for (const chat of chats) {
    const time = new Date(chat.updated_at).getTime();
    const name = chat.pinned
      ? "Pinned"
      : time >= midnight
        ? "Today"
        : time >= midnight - day
          ? "Yesterday"
          : time >= midnight - 7 * day
            ? "Last 7 days"
            : new Date(time).toLocaleDateString("en", { month: "long", year: "numeric" });
    groups.set(name, [...(groups.get(name) ?? []), chat]);
  }
  return [...groups].map(([name, list]) => ({ name, chats: list }));
}

const DIRECTION_CONTROLS = /[\u202a-\u202e\u2066-\u2069]/g;
const MAX_MARKS = 16; // no script stacks more on one letter; a browser takes quadratic time for them
const STACKED_MARKS = new RegExp(`(\\p{M}{${MAX_MARKS}})(\\p{M}+)`, "gu");

/**
 * Text that can be drawn as it is: characters that turn the reading direction are seen instead of felt (they can make code
 * read otherwise than it runs: https://trojansource.codes), and a tower of combining marks is cut.
 * @param {string} text
 */
export function withVisibleControls(text) {
  return text
    .replace(DIRECTION_CONTROLS, (c) => `⟨U+${c.charCodeAt(0).toString(16).toUpperCase()}⟩`)
    .replace(STACKED_MARKS, (_, shown, cut) => `${shown}⟨+${cut.length} marks⟩`);
}
