/** Charts of a run: scores by category as bars or a radar, relative quality, and wins, ties and losses. */

import { Figure } from "../ui/figure.js";
import { html } from "../ui/html.js";
import { Table } from "../ui/table.js";

/** @import {Estimate, Pair, Quality, Scores} from "./types.js" */

const MOST_SERIES = 8; // of the palette

/** A value in few digits. @param {number | null} value */
export const brief = (value) => (value === null ? "–" : value.toFixed(Math.abs(value) < 1 ? 3 : 2));

/** @param {number | null} value @param {number} [digits] */
export const percent = (value, digits = 0) => (value === null ? "–" : `${(100 * value).toFixed(digits)} %`);

/** @param {Estimate | undefined} estimate */
const withInterval = (estimate) =>
  estimate === undefined ? "–" : estimate.low === null ? brief(estimate.value) : `${brief(estimate.value)} [${brief(estimate.low)}, ${brief(estimate.high)}]`;

/** @param {{scores: Scores, view: string}} props  view: bars or radar */
export function ByCategory({ scores, view }) {
  const { models, most, unit, metric } = scores;
  const categories = [...new Set(models.flatMap((model) => Object.keys(model.categories)))];
  const columns = [
    { name: "Category", cell: (/** @type {string | null} */ row) => row ?? html`<strong>all</strong>` },
    ...models.map((model) => ({
      name: model.model,
      cell: (/** @type {string | null} */ row) => withInterval(row === null ? model.all : model.categories[row]),
      isNumber: true,
    })),
  ];
  const rows = [null, ...categories];
  const table = () => html`<${Table} label="Scores by category" columns=${columns} rows=${rows} keyOf=${String} />`;
  const isRadar = view === "radar" && categories.length > 2;
  const picture = () => (isRadar ? html`<${Radar} models=${models} categories=${categories} most=${most} />` : html`<${Bars} models=${models} rows=${rows} most=${most} />`);
  return html`<${Figure} title=${`${metric}: ${unit}, with 95 % intervals`} picture=${picture} table=${table} />
    <${Legend} names=${models.map(({ model }) => model)} />`;
}

/** @param {{names: string[]}} props */
function Legend({ names }) {
  return html`<ul class="named">${names.map((name, i) => html`<li key=${name}><svg viewBox="0 0 10 10" aria-hidden="true"><rect class=${series(i)} width="10" height="10" /></svg>${name}</li>`)}</ul>`;
}

const series = (/** @type {number} */ i) => `series-${(i % MOST_SERIES) + 1}`;

/** @param {{models: Scores["models"], rows: (string | null)[], most: number}} props */
function Bars({ models, rows, most }) {
  const x = (/** @type {number} */ value) => Math.max(0, Math.min(100, (100 * value) / most));
  return html`<dl class="bars labelled">
    ${rows.map((row) => html`<div key=${row ?? "all"}>
      <dt>${row ?? html`<strong>all</strong>`}</dt>
      <dd>${models.map((model, i) => {
        const estimate = row === null ? model.all : model.categories[row];
        if (!estimate) return null;
        const { value, low, high } = estimate;
        return html`<svg key=${model.model} class="amount-bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label=${`${model.model}: ${withInterval(estimate)}`}>
          <title>${`${model.model}: ${withInterval(estimate)}, ${estimate.num} questions`}</title>
          <rect class=${series(i)} width=${x(value)} height="8" />
          ${low !== null && high !== null && html`<path class="whisker" d=${`M${x(low)} 4H${x(high)}M${x(low)} 1.5v5M${x(high)} 1.5v5`} />`}
        </svg>
        <span key=${`${model.model} in digits`} class="amount">${brief(value)}</span>`;
      })}</dd>
    </div>`)}
  </dl>`;
}

/** @param {{models: Scores["models"], categories: string[], most: number}} props */
function Radar({ models, categories, most }) {
  const at = (/** @type {number} */ i, /** @type {number} */ share) => {
    const angle = (2 * Math.PI * i) / categories.length - Math.PI / 2;
    return [200 + 95 * share * Math.cos(angle), 120 + 95 * share * Math.sin(angle)].map((v) => v.toFixed(1)).join(" ");
  };
  const ring = (/** @type {number} */ share) => `M${categories.map((_, i) => at(i, share)).join("L")}Z`;
  const label = models.map(({ model, all }) => `${model} ${brief(all.value)}`).join(", ");
  return html`<svg class="radar" viewBox="0 0 400 240" role="img" aria-label=${`Scores by category. ${label}`}>
    ${[0.25, 0.5, 0.75, 1].map((share) => html`<path class="ring" d=${ring(share)} />`)}
    ${models.map((model, i) => html`<path key=${model.model} class=${`web ${series(i)}`} d=${`M${categories.map((name, j) => at(j, (model.categories[name]?.value ?? 0) / most)).join("L")}Z`}><title>${model.model}</title></path>`)}
    ${categories.map((name, i) => {
      const [x, y] = at(i, 1.14).split(" ");
      const anchor = Math.abs(Number(x) - 200) < 8 ? "middle" : Number(x) < 200 ? "end" : "start";
      return html`<text key=${name} x=${x} y=${Number(y) + 3} text-anchor=${anchor}>${name}</text>`;
    })}
  </svg>`;
}

/** Figure 1 of the Vicuna post. @param {{rows: Quality[]}} props */
export function RelativeQuality({ rows }) {
  const text = (/** @type {Quality} */ row) => `${row.percent.toFixed(1)} %`;
  const widest = Math.max(...rows.map((row) => row.high));
  const x = (/** @type {number} */ value) => (100 * value) / widest;
  const picture = () => html`<dl class="bars labelled">
    ${rows.map((row) => html`<div key=${row.model}>
      <dt>${row.model}</dt>
      <dd>
        <svg class="amount-bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label=${`${row.model}: ${text(row)}`}>
          <rect class="series-1" width=${x(row.percent)} height="8" />
          ${row.high > row.low && html`<path class="whisker" d=${`M${x(row.low)} 4H${x(row.high)}M${x(row.low)} 1.5v5M${x(row.high)} 1.5v5`} />`}
        </svg>
        <span class="amount">${text(row)}</span>
      </dd>
    </div>`)}
  </dl>`;
  const columns = [
    { name: "Model", cell: (/** @type {Quality} */ row) => row.model, by: (/** @type {Quality} */ row) => row.model },
    { name: "Share", cell: text, by: (/** @type {Quality} */ row) => row.percent, isNumber: true },
    { name: "95 % interval", cell: (/** @type {Quality} */ row) => `${row.low.toFixed(1)} % to ${row.high.toFixed(1)} %`, isNumber: true },
    { name: "Through", cell: (/** @type {Quality} */ row) => row.through.join(", ") || "–" },
  ];
  const table = () => html`<${Table} label="Relative quality" columns=${columns} rows=${rows} keyOf=${(/** @type {Quality} */ row) => row.model} />`;
  return html`<${Figure} title="Relative quality: share of the best model's total" picture=${picture} table=${table} />`;
}

/** Figure 3 of the Vicuna post. @param {{pairs: Pair[]}} props */
export function Wins({ pairs }) {
  const name = (/** @type {Pair} */ pair) => `${pair.model_a} against ${pair.model_b}`;
  const picture = () => html`<dl class="bars stacked">
    ${pairs.map((pair) => {
      const num = pair.wins_a + pair.ties + pair.wins_b;
      const [a, tie] = [(100 * pair.wins_a) / num, (100 * pair.ties) / num];
      return html`<div key=${name(pair)}>
        <dt>${name(pair)}</dt>
        <dd><svg class="amount-bar" viewBox="0 0 100 8" preserveAspectRatio="none" role="img" aria-label=${`${pair.model_a} wins ${pair.wins_a}, ties ${pair.ties}, ${pair.model_b} wins ${pair.wins_b}`}>
          <rect class="series-1" width=${a} height="8" /><rect class="tie" x=${a} width=${tie} height="8" /><rect class="series-2" x=${a + tie} width=${100 - a - tie} height="8" />
        </svg>
        <span class="amount">${pair.wins_a} : ${pair.ties} : ${pair.wins_b}</span></dd>
      </div>`;
    })}
  </dl>`;
  const columns = [
    { name: "First", cell: (/** @type {Pair} */ pair) => pair.model_a, by: (/** @type {Pair} */ pair) => pair.model_a },
    { name: "Second", cell: (/** @type {Pair} */ pair) => pair.model_b, by: (/** @type {Pair} */ pair) => pair.model_b },
    { name: "First wins", cell: (/** @type {Pair} */ pair) => pair.wins_a, by: (/** @type {Pair} */ pair) => pair.wins_a, isNumber: true },
    { name: "Ties", cell: (/** @type {Pair} */ pair) => pair.ties, by: (/** @type {Pair} */ pair) => pair.ties, isNumber: true },
    { name: "Second wins", cell: (/** @type {Pair} */ pair) => pair.wins_b, by: (/** @type {Pair} */ pair) => pair.wins_b, isNumber: true },
    { name: "Totals", cell: (/** @type {Pair} */ pair) => (pair.total_a === null ? "–" : `${pair.total_a} / ${pair.total_b}`), isNumber: true },
    { name: "Second minus first, 95 %", cell: (/** @type {Pair} */ pair) => (pair.difference === null ? "–" : `${brief(pair.difference)} [${brief(pair.low)}, ${brief(pair.high)}]`), by: (/** @type {Pair} */ pair) => pair.difference, isNumber: true },
  ];
  const table = () => html`<${Table} label="Wins, ties and losses" columns=${columns} rows=${pairs} keyOf=${name} />`;
  return html`<${Figure} title="Questions won : tied : lost" picture=${picture} table=${table} />`;
}
