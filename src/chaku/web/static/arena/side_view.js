/** One side of a battle: anonymous until the vote, then with its name, its speed and its settings. */

/** @import {Battle, SideName} from "./battle.js" */
import { count } from "../ui/format.js";
import { html, useLayoutEffect, useRef } from "../ui/html.js";
import { useEnd } from "../chat/messages.js";
import { AnswerText } from "./answer_text.js";

/** @param {{battle: Battle, side: SideName}} props */
export function SideView({ battle, side }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const column = useRef(/** @type {HTMLElement | null} */ (null));
  const { toEnd, onScroll } = useEnd(box, column);
  useLayoutEffect(toEnd, [battle.prompts.length]);
  const { state, answers } = battle.sides[side];
  const revealed = battle.revealed?.sides[side];
  const name = `Model ${side.toUpperCase()}`;
  const isLast = (/** @type {number} */ i) => i === battle.prompts.length - 1;
  return html`<section class=${`battle-side${battle.revealed?.choice === side ? " won" : ""}`} aria-label=${name}>
    <header class="bar"><h2>${name}</h2>${revealed && html`<${Name} revealed=${revealed} isWinner=${battle.revealed?.choice === side} />`}</header>
    <div class="messages" ref=${box} onScroll=${onScroll} tabindex="0" role="region" aria-label=${`What ${name} says`}>
      <div class="column" ref=${column}>
        ${battle.prompts.map(
          (prompt, i) => html`<article key=${`prompt-${i}`} class="message user"><h3 class="visually-hidden">You</h3><div class="said" dir="auto">${prompt}</div></article>
            <article key=${`answer-${i}-${battle.numReplaced}`} class="message assistant">
              <h3 class="visually-hidden">Answer of ${name}</h3>
              <${AnswerText} text=${answers[i] ?? ""} isWhole=${!isLast(i) || state === "ended" || state === "failed" || battle.revealed !== null} />
              ${isLast(i) && state === "failed" && html`<p class="complaint">${answers[i] ? "The answer broke off." : "No answer came."}</p>`}
            </article>`,
        )}
      </div>
    </div>
  </section>`;
}

/** "135 M", "7.2 B". @param {number} num */
function sizeOf(num) {
  const [unit, letter] = num >= 1e9 ? [1e9, "B"] : [1e6, "M"];
  return `${(num / unit).toFixed(num / unit < 10 ? 1 : 0)}${letter}`;
}

/** @param {{revealed: import("./battle.js").RevealedSide, isWinner: boolean}} props */
function Name({ revealed, isWinner }) {
  const { contestant, model, tokens_per_s: rate, num_tokens: tokens, num_parameters: size, parameters } = revealed;
  const { system, sampling, ...rest } = parameters;
  const settings = Object.entries({ ...rest, ...sampling }).filter(([, value]) => value != null);
  const facts = [
    contestant !== model && `served as ${model}`,
    size != null && `${sizeOf(size)} parameters`,
    tokens != null && count(tokens, "token"),
    rate != null && `${rate.toFixed(1)} tokens/s`,
    ...settings.map(([name, value]) => `${name} ${JSON.stringify(value)}`),
    system && `system prompt “${system.length > 80 ? `${system.slice(0, 80)}…` : system}”`,
  ];
  return html`<div class="revealed-name">
    <strong>${contestant}</strong>${isWinner && html`<span class="chip">your choice</span>`}
    <p class="hint">${facts.filter(Boolean).join(" · ")}</p>
  </div>`;
}
