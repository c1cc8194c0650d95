/** The vote: four choices by button or key, reasons that may go with it, and the way back. */

/** @import {Battle, Choice} from "./battle.js" */
import { html, useLayoutEffect, useState } from "../ui/html.js";

/** @type {{choice: Choice, label: string, keys: string[], shown: string}[]} */
export const CHOICES = [
  { choice: "a", label: "A is better", keys: ["1", "ArrowLeft"], shown: "1" },
  { choice: "tie", label: "Tie", keys: ["2"], shown: "2" },
  { choice: "both_bad", label: "Both are bad", keys: ["3"], shown: "3" },
  { choice: "b", label: "B is better", keys: ["4", "ArrowRight"], shown: "4" },
];

/** The choice that a key press means, if it means one: not while something is being written. @param {KeyboardEvent} event */
export function choiceOf(event) {
  const isWriting = /** @type {HTMLElement} */ (event.target).matches?.("input, textarea, select, [role=tab], [contenteditable]");
  if (isWriting || event.isComposing || event.altKey || event.ctrlKey || event.metaKey || event.shiftKey || event.repeat) return null;
  return CHOICES.find(({ keys }) => keys.includes(event.key))?.choice ?? null;
}

/**
 * @param {object} props
 * @param {Battle} props.battle
 * @param {boolean} props.isWide  there is room for the reasons
 * @param {string[]} props.offered  reasons
 * @param {string[]} props.reasons  those that were chosen
 * @param {(reasons: string[]) => void} props.onReasons
 * @param {(choice: Choice) => void} props.onVote
 */
export function VoteBar({ battle, isWide, offered, reasons, onReasons, onVote }) {
  return html`<div class="vote-bar" role="group" aria-label="Your vote">
    <div class="vote-choices">
      ${CHOICES.map(
        ({ choice, label, shown }) => html`<button type="button" class="button" disabled=${!battle.canVote} aria-keyshortcuts=${shown} onClick=${() => onVote(choice)}>
          <kbd>${shown}</kbd> ${label}
        </button>`,
      )}
    </div>
    <details open=${isWide}>
      <summary class="hint">Reasons, if you like${reasons.length ? `: ${reasons.join(", ")}` : ""}</summary>
      <${Reasons} offered=${offered} chosen=${reasons} isDisabled=${!battle.canVote} onChoose=${onReasons} />
    </details>
  </div>`;
}

/** @param {{offered: string[], chosen: string[], isDisabled?: boolean, onChoose: (reasons: string[]) => void}} props */
function Reasons({ offered, chosen, isDisabled = false, onChoose }) {
  const toggle = (/** @type {string} */ reason) => onChoose(chosen.includes(reason) ? chosen.filter((other) => other !== reason) : [...chosen, reason]);
  return html`<p class="chips" role="group" aria-label="Reasons">
    ${offered.map((reason) => html`<button type="button" class="chip" aria-pressed=${chosen.includes(reason)} disabled=${isDisabled} onClick=${() => toggle(reason)}>${reason}</button>`)}
  </p>`;
}

/**
 * What the vote came to, and why: reasons may still be given.
 * @param {{battle: Battle, offered: string[], onUndo: () => void, onNew: () => void}} props
 */
export function Outcome({ battle, offered, onUndo, onNew }) {
  const revealed = /** @type {import("./battle.js").Revealed} */ (battle.revealed);
  const [tick, setTick] = useState(0);
  const left = battle.undoLeftS;
  useLayoutEffect(() => {
    if (left <= 0) return;
    const timer = setTimeout(() => setTick(tick + 1), 250);
    return () => clearTimeout(timer);
  }, [tick, revealed]);
  const said = { a: "A is better", b: "B is better", tie: "Tie", both_bad: "Both are bad" }[revealed.choice];
  return html`<div class="vote-bar">
    <p role="status">
      <strong>You voted: ${said}.</strong> A was ${revealed.sides.a.contestant}, B was ${revealed.sides.b.contestant}.
      ${revealed.counted ? " Your vote counts." : ` Your vote is kept but does not count: ${revealed.reason}.`}
    </p>
    <${Reasons} offered=${offered} chosen=${revealed.reasons} onChoose=${(/** @type {string[]} */ reasons) => void battle.giveReasons(reasons)} />
    <p class="row">
      <button type="button" class="button primary" aria-keyshortcuts="n" onClick=${onNew}><kbd>N</kbd> New battle</button>
      ${left > 0 && html`<button type="button" class="quiet" aria-keyshortcuts="u" onClick=${onUndo}><kbd>U</kbd> Undo (${left} s)</button>`}
      <a href="/leaderboard">Ratings</a>
    </p>
  </div>`;
}
