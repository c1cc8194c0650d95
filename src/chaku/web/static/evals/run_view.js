/** One evaluation run: what it found, what its judge is like, what it cost, and every question. The same as a report. */

import { Matrix } from "../ui/charts.js";
import { html, useState } from "../ui/html.js";
import { Table } from "../ui/table.js";
import { Tabs } from "../ui/tabs.js";
import { Questions } from "./question_view.js";
import { ByCategory, RelativeQuality, Wins, percent } from "./scores.js";

/** @import {EvalRun, Judgement, Question, Share} from "./types.js" */

const VIEWS = [
  { name: "bars", label: "Bars" },
  { name: "radar", label: "Radar" },
];

/** @param {{run: EvalRun, onDisagree?: (judgement: Judgement, question: Question, outcome: string) => Promise<void>}} props */
export function RunView({ run, onDisagree }) {
  const [view, setView] = useState("bars");
  const scored = run.scores.filter(({ models }) => models.length);
  return html`
    <${Facts} run=${run} />
    ${scored.length > 0 && html`<h2>Scores by category</h2>
      <${Tabs} label="Chart" tabs=${VIEWS} chosen=${view} onChoose=${setView}>
        ${scored.map((scores) => html`<${ByCategory} key=${scores.metric} scores=${scores} view=${view} />`)}
      <//>`}
    ${run.pairs.length > 0 && html`<h2>Pairs</h2>
      <div class="plots">
        ${run.quality.length > 1 && html`<${RelativeQuality} rows=${run.quality} />`}
        <${Wins} pairs=${run.pairs} />
      </div>
      ${run.matrix.names.length > 2 && html`<${Matrix} title="Share of points that the row won against the column" names=${run.matrix.names} values=${run.matrix.values} />`}`}
    ${run.health && html`<h2>Judge</h2><${Health} health=${run.health} judge=${run.judge} />`}
    <h2>Cost</h2>
    <${Cost} rows=${run.cost} />
    <${Questions} run=${run} onDisagree=${onDisagree} />
  `;
}

/** @param {{run: EvalRun}} props */
function Facts({ run }) {
  const done = (/** @type {[number, number]} */ [now, all]) => (now < all ? `${now.toLocaleString("en")} of ${all.toLocaleString("en")}` : now.toLocaleString("en"));
  const facts = [
    ["Suite", run.suite],
    ["Models", run.models.join(", ")],
    ["Judge", run.judge ?? "none"],
    ["Mode", run.mode ?? "none"],
    ["Questions", run.questions.length.toLocaleString("en")],
    ["Answers", done(run.answers)],
    ["Judgements", done(run.judgements)],
    ["Begun", run.created.slice(0, 16).replace("T", " ")],
  ];
  return html`<dl class="run-facts eval-facts">${facts.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}</dl>`;
}

/** @param {{health: NonNullable<EvalRun["health"]>, judge: string | null}} props */
function Health({ health, judge }) {
  const told = (/** @type {Share} */ share) => (share.num ? `${percent(share.value, 1)} (${share.count} of ${share.num}; 95 %: ${percent(share.low, 1)} to ${percent(share.high, 1)})` : "not known: no pair was judged in both orders");
  const isBiased = health.first.num > 0 && health.first_p < 0.05;
  return html`<dl class="health">
    <dt>Judgements that failed or could not be read</dt><dd>${told(health.unread)}</dd>
    <dt>Another winner when the sides were exchanged</dt><dd>${told(health.flips)}</dd>
    <dt>Winners that were shown first</dt><dd>${told(health.first)}${isBiased && html` <strong class="complaint">The order sways this judge: half is fair.</strong>`}</dd>
  </dl>
  ${judge && html`<p class="hint"><code>chaku eval judge-check ${judge}</code> tells more.</p>`}`;
}

/** @param {{rows: EvalRun["cost"]}} props */
function Cost({ rows }) {
  const whole = (/** @type {number} */ n) => (n ? n.toLocaleString("en") : "–");
  const columns = [
    { name: "Model", cell: (/** @type {any} */ row) => row.name, by: (/** @type {any} */ row) => row.name },
    { name: "For", cell: (/** @type {any} */ row) => row.what, by: (/** @type {any} */ row) => row.what },
    { name: "Calls", cell: (/** @type {any} */ row) => whole(row.num), by: (/** @type {any} */ row) => row.num, isNumber: true },
    { name: "Prompt tokens", cell: (/** @type {any} */ row) => whole(row.prompt_tokens), by: (/** @type {any} */ row) => row.prompt_tokens, isNumber: true },
    { name: "Answer tokens", cell: (/** @type {any} */ row) => whole(row.completion_tokens), by: (/** @type {any} */ row) => row.completion_tokens, isNumber: true },
    { name: "Dollars", cell: (/** @type {any} */ row) => (row.dollars === null ? "–" : row.dollars.toFixed(4)), by: (/** @type {any} */ row) => row.dollars, isNumber: true },
  ];
  return html`<${Table} label="Cost" columns=${columns} rows=${rows} keyOf=${(/** @type {any} */ row) => `${row.name}\n${row.what}`} />`;
}
