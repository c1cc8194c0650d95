/** Which answer was best: kept with the names, apart from the arena's votes. */

/** @import {Column} from "./column.js" */
import { post } from "../data/api.js";
import { html, useLayoutEffect, useState } from "../ui/html.js";

const UNDO_MS = 10_000;

/**
 * @param {{columns: Column[], isBlind: boolean, attempt: (work: Promise<any>) => Promise<void>}} props
 */
export function VoteRow({ columns, isBlind, attempt }) {
  const [judged, setJudged] = useState(""); // the answers that the last vote was about
  const answers = columns.map(({ conversation }) => ({ chat: conversation.id, message: conversation.path.at(-1) }));
  if (answers.some(({ message }) => message?.role !== "assistant" || message.state === "streaming" || message.state === "failed")) return null;
  if (new Set(answers.map(({ message }) => message?.model)).size < 2) return null;
  const about = answers.map(({ message }) => message?.id).join();
  const vote = (/** @type {string} */ choice, /** @type {number | null} */ best = null) => {
    const body = { answers: answers.map(({ chat, message }) => ({ chat, message: message?.id })), choice, best, is_blind: isBlind };
    attempt(post("/compare/votes", body).then(() => setJudged(choice === "none" ? "" : about)));
  };
  if (judged === about) return html`<${Kept} onUndo=${() => vote("none")} />`;
  return html`<div class="vote-row" role="group" aria-label="Which answer is best?">
    <p class="row">
      ${columns.map((column, i) => html`<button key=${column.key} type="button" class="button" onClick=${() => vote("best", i)}>${i + 1} is best</button>`)}
      <button type="button" class="button" onClick=${() => vote("tie")}>Tie</button>
      <button type="button" class="button" onClick=${() => vote("all_bad")}>All are bad</button>
    </p>
    <p class="hint">Your choice is kept on this server as data. It does not enter the ratings.</p>
  </div>`;
}

/** What is said after a choice, and for ten seconds the way back. @param {{onUndo: () => void}} props */
function Kept({ onUndo }) {
  const [canUndo, setCanUndo] = useState(true);
  useLayoutEffect(() => {
    const timer = setTimeout(() => setCanUndo(false), UNDO_MS);
    return () => clearTimeout(timer);
  }, []);
  return html`<p class="hint vote-row" role="status">
    Your choice is kept. ${canUndo && html`<button type="button" class="quiet" onClick=${onUndo}>Undo</button>`}
  </p>`;
}
