/** The battles of one pair, each with its texts where the voter agreed to show them. */

import { AnswerText } from "../arena/answer_text.js";
import { get } from "../data/api.js";
import { Resource } from "../data/resource.js";
import { Dialog } from "../ui/dialog.js";
import { count } from "../ui/format.js";
import { html, useLayoutEffect, useMemo, useState } from "../ui/html.js";
import { Empty, Shown } from "../ui/states.js";

/** @param {{modelA: string, modelB: string, onClose: () => void}} props */
export function BattleDialog({ modelA, modelB, onClose }) {
  const battles = useMemo(
    () => new Resource(() => get(`/arena/battles?model_a=${encodeURIComponent(modelA)}&model_b=${encodeURIComponent(modelB)}`), (found) => !found.battles.length),
    [modelA, modelB],
  );
  useLayoutEffect(() => void battles.load(), [battles]);
  return html`<${Dialog} title=${`${modelA} against ${modelB}`} kind="drawer" onClose=${onClose}>
    <${Shown}
      resource=${battles}
      draw=${(/** @type {any} */ { battles: rows, total }) => html`<p class="hint">${count(total, "battle")}${rows.length < total ? `, the newest ${rows.length} of them` : ""}</p>
        ${rows.map((/** @type {any} */ battle) => html`<${ListedBattle} key=${battle.id} battle=${battle} />`)}`}
      empty=${html`<${Empty} title="No battles in this arena">These games came from a judge or from an imported file.<//>`}
    />
  <//>`;
}

/** @param {{battle: any}} props */
function ListedBattle({ battle }) {
  const [isOpen, setOpen] = useState(false);
  const { model_a: a, model_b: b, prompts } = battle;
  /** @type {Record<string, string>} */
  const outcomes = { a: `${a} was better`, b: `${b} was better`, tie: "tie", both_bad: "both bad", "": "no vote" };
  const facts = [outcomes[battle.outcome] ?? battle.outcome, count(battle.turns, "turn"), battle.category?.replace("_", " "), battle.language, battle.created_at.slice(0, 10)];
  if (!prompts) return html`<section><p>${facts.filter(Boolean).join(" · ")}</p><p class="hint">The voter did not agree to show the texts.</p></section>`;
  return html`<section>
    <details class="told" onToggle=${(/** @type {any} */ event) => setOpen(event.currentTarget.open)}>
      <summary dir="auto">${prompts[0]?.slice(0, 120)}</summary>
      ${isOpen &&
      prompts.map(
        (/** @type {string} */ prompt, /** @type {number} */ i) => html`<div class="listed-turn">
          <p class="said" dir="auto">${prompt}</p>
          <h3>${a}</h3>
          <${AnswerText} text=${battle.answers_a?.[i] ?? ""} isWhole />
          <h3>${b}</h3>
          <${AnswerText} text=${battle.answers_b?.[i] ?? ""} isWhole />
        </div>`,
      )}
    </details>
    <p class="hint">${facts.filter(Boolean).join(" · ")}</p>
  </section>`;
}
