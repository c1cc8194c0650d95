/** The comparison page: one question, the answers of two assistants, and what the judge said of them. */

import { Select } from "../ui/field.js";
import { html, useState } from "../ui/html.js";

/** @import {EvalRun, Judgement, Question} from "./types.js" */

const LONG = 900; // letters of an answer that are shown before "Show more"
const RESULTS = [
  { value: "", label: "all" },
  { value: "a", label: "the first wins" },
  { value: "tie", label: "tie" },
  { value: "b", label: "the second wins" },
  { value: "unread", label: "not read" },
];
const SCORES = [{ value: "", label: "any" }, ...[9, 7, 5, 3].map((limit) => ({ value: String(limit), label: `${limit} or less` }))];

/** @param {{run: EvalRun, onDisagree?: (judgement: Judgement, question: Question, outcome: string) => Promise<void>}} props */
export function Questions({ run, onDisagree }) {
  const first = run.pairs[0];
  const [a, setA] = useState(first?.model_a ?? run.models[0] ?? "");
  const [b, setB] = useState(first?.model_b ?? run.models[1] ?? "");
  const [filters, setFilters] = useState({ category: "", result: "", score: "", flipped: false, differs: false });
  const [chosen, setChosen] = useState("");
  if (!run.questions.length) return null;
  const fitting = run.questions.filter((question) => fits(question, a, b, filters));
  const at = Math.max(0, fitting.findIndex((question) => question.id === chosen));
  const question = fitting[at];
  const change = (/** @type {Partial<typeof filters>} */ some) => setFilters({ ...filters, ...some });
  const names = run.models.map((name) => ({ value: name, label: name }));
  const categories = [...new Set(run.questions.map(({ category }) => category))];
  const tick = (/** @type {"flipped" | "differs"} */ name, /** @type {string} */ label) => html`<label class="tick">
    <input type="checkbox" checked=${filters[name]} onChange=${() => change({ [name]: !filters[name] })} /> ${label}
  </label>`;
  return html`<h2>Questions</h2>
    <div class="row eval-filters">
      <${Select} label="Category" value=${filters.category} options=${[{ value: "", label: "all" }, ...categories.map((value) => ({ value, label: value }))]} onChoose=${(/** @type {string} */ category) => change({ category })} />
      <${Select} label="Assistant 1" value=${a} options=${names} onChoose=${setA} />
      ${run.models.length > 1 && html`<${Select} label="Assistant 2" value=${b} options=${names} onChoose=${setB} />`}
      <${Select} label="Result" value=${filters.result} options=${RESULTS} onChoose=${(/** @type {string} */ result) => change({ result })} />
      <${Select} label="A score of" value=${filters.score} options=${SCORES} onChoose=${(/** @type {string} */ score) => change({ score })} />
      ${tick("flipped", "Judge changed its mind")}
      ${run.against && tick("differs", `differs from ${run.against}`)}
    </div>
    ${question
      ? html`<div class="row spread eval-steps">
            <button type="button" class="quiet" disabled=${at === 0} onClick=${() => setChosen(fitting[at - 1].id)}>Previous</button>
            <${Select} label="Question" value=${question.id} options=${fitting.map(({ id, turns }) => ({ value: id, label: `${id}: ${turns[0].slice(0, 70)}` }))} onChoose=${setChosen} />
            <span class="hint">${at + 1} of ${fitting.length}</span>
            <button type="button" class="quiet" disabled=${at === fitting.length - 1} onClick=${() => setChosen(fitting[at + 1].id)}>Next</button>
          </div>
          <${OneQuestion} key=${`${question.id}\n${a}\n${b}`} question=${question} a=${a} b=${b} onDisagree=${onDisagree} />`
      : html`<p class="hint">No question fits these filters.</p>`}`;
}

/** @param {Question} question @param {string} a @param {string} b */
const judgementsOf = (question, a, b) =>
  question.judgements.filter(({ models }) => (models.length === 2 ? models.includes(a) && models.includes(b) : models[0] === a || models[0] === b));

/** @param {string[][]} pairs @param {string} a @param {string} b */
const hasPair = (pairs, a, b) => pairs.some((pair) => pair.includes(a) && pair.includes(b));

/** @param {Question} question @param {string} a @param {string} b @param {{category: string, result: string, score: string, flipped: boolean, differs: boolean}} filters */
function fits(question, a, b, { category, result, score, flipped, differs }) {
  if (category && question.category !== category) return false;
  if (flipped && !hasPair(question.flipped, a, b)) return false;
  if (differs && !hasPair(question.differs, a, b)) return false;
  const judged = judgementsOf(question, a, b);
  if (result === "unread" && !judged.some(({ state }) => state !== "ok")) return false;
  if (result && result !== "unread" && !judged.some((one) => resultOf(one, a) === result)) return false;
  return !score || judged.some(({ scores }) => scores.some((value) => value <= Number(score)));
}

/** Who won, seen from the assistant `a`. @param {Judgement} judgement @param {string} a */
function resultOf({ outcome, models }, a) {
  if (outcome === null || outcome === "tie") return outcome;
  return (outcome === "a") === (models[0] === a) ? "a" : "b";
}

/** @param {{question: Question, a: string, b: string, onDisagree?: (judgement: Judgement, question: Question, outcome: string) => Promise<void>}} props */
function OneQuestion({ question, a, b, onDisagree }) {
  const judged = judgementsOf(question, a, b);
  const score = (/** @type {string} */ model) => {
    const found = judged.find(({ scores, models }) => scores.length && models.includes(model));
    return found ? `${found.scores[found.models.indexOf(model)]}${found.mode === "check" ? "" : "/10"}` : null;
  };
  const sides = a === b ? [a] : [a, b];
  return html`<article class="eval-question">
    <p class="hint">${question.category}</p>
    ${question.turns.map((turn) => html`<p class="asked">${turn}</p>`)}
    ${question.reference.length > 0 && html`<details><summary>Reference</summary><pre class="said-text">${question.reference.join("\n\n")}</pre></details>`}
    <div class="assistants">
      ${sides.map((model, i) => html`<section key=${model} aria-label=${`Assistant ${i + 1}`}>
        <h3>Assistant ${i + 1}: ${model} ${score(model) !== null && html`<span class="chip">${score(model)}</span>`}</h3>
        <${AnswerOf} answer=${question.answers[model]} />
      </section>`)}
    </div>
    ${judged.map((judgement) => html`<${Evaluation} key=${judgement.key} judgement=${judgement} onDisagree=${onDisagree && ((/** @type {string} */ outcome) => onDisagree(judgement, question, outcome))} />`)}
    ${!judged.length && html`<p class="hint">These two were not judged on this question.</p>`}
  </article>`;
}

/** @param {{answer?: {turns: string[], error: string | null}}} props */
function AnswerOf({ answer }) {
  const [isWhole, setWhole] = useState(false);
  if (!answer) return html`<p class="hint">no answer</p>`;
  if (answer.error) return html`<p class="hint">failed: ${answer.error}</p>`;
  const text = answer.turns.join("\n\n――――\n\n");
  const isLong = text.length > LONG;
  return html`<pre class="said-text">${isWhole || !isLong ? text : `${text.slice(0, LONG)}…`}</pre>
    ${isLong && html`<button type="button" class="quiet" aria-expanded=${isWhole} onClick=${() => setWhole(!isWhole)}>${isWhole ? "Show less" : "Show more"}</button>`}`;
}

/** @param {{judgement: Judgement, onDisagree?: (outcome: string) => Promise<void>}} props */
function Evaluation({ judgement, onDisagree }) {
  const { text, deciding, models, state, error, outcome, scores, judge, turn } = judgement;
  const said =
    state !== "ok"
      ? `${state === "failed" ? "failed" : "could not be read"}${error ? `: ${error}` : ""}`
      : outcome === "tie"
        ? "tie"
        : outcome
          ? `${models[outcome === "a" ? 0 : 1]} wins`
          : scores.join(", ");
  const [start, end] = deciding ?? [0, 0];
  return html`<section class="evaluation" aria-label="Evaluation">
    <h3>${judge}: ${said} <span class="hint">${scores.length === 2 ? `${scores.join(" and ")}, ` : ""}${models.length === 2 ? `shown in the order ${models.join(", ")}` : models[0]}${turn > 1 ? `, turn ${turn}` : ""}</span></h3>
    ${text && html`<pre class="said-text">${text.slice(0, start)}${end > start && html`<mark>${text.slice(start, end)}</mark>`}${text.slice(end)}</pre>`}
    ${onDisagree && models.length === 2 && html`<${Disagree} judgement=${judgement} onDisagree=${onDisagree} />`}
  </section>`;
}

/** @param {{judgement: Judgement, onDisagree: (outcome: string) => Promise<void>}} props */
function Disagree({ judgement, onDisagree }) {
  const [told, setTold] = useState("");
  const { models, outcome } = judgement;
  const others = [
    { value: "a", label: `${models[0]} is better` },
    { value: "tie", label: "it is a tie" },
    { value: "b", label: `${models[1]} is better` },
  ].filter(({ value }) => value !== outcome);
  const send = async (/** @type {{value: string, label: string}} */ { value, label }) => {
    setTold("…");
    try {
      await onDisagree(value);
      setTold(`Kept as your vote: ${label}.`);
    } catch (problem) {
      setTold(`That was not kept: ${problem instanceof Error ? problem.message : problem}`);
    }
  };
  return html`<p class="row disagree"><span>Disagree:</span> ${others.map((other) => html`<button type="button" class="quiet" key=${other.value} onClick=${() => void send(other)}>${other.label}</button>`)} <span role="status">${told}</span></p>`;
}
