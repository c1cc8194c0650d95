/** What a leaderboard shows: ratings with their intervals, win rates, counts, months, and what they rest on. */

import { Interval, Matrix } from "../ui/charts.js";
import { count } from "../ui/format.js";
import { html } from "../ui/html.js";
import { Plot } from "../ui/plot.js";
import { Table } from "../ui/table.js";

/** @typedef {{model: string, rating: number, low: number, high: number, rank_low: number, rank_high: number, votes: number, collecting: boolean}} LeaderRow */

/** @param {{rows: LeaderRow[]}} props */
export function Ratings({ rows }) {
  if (!rows.length) return null;
  const finite = rows.flatMap(({ low, high }) => [low, high]).filter(Number.isFinite);
  const from = Math.min(...finite);
  const to = Math.max(...finite);
  const rank = (/** @type {LeaderRow} */ row) => (row.rank_low === row.rank_high ? row.rank_low : `${row.rank_low}–${row.rank_high}`);
  const rounded = (/** @type {number} */ value) => (Number.isFinite(value) ? Math.round(value) : "–");
  /** @type {import("../ui/table.js").Column<LeaderRow>[]} */
  const columns = [
    { name: "Rank", cell: rank, by: (row) => row.rank_low + row.rank_high / 1000 },
    { name: "Model", cell: (row) => html`<strong>${row.model}</strong>${row.collecting && html` <span class="chip collecting">collecting</span>`}`, by: (row) => row.model },
    { name: "Rating", cell: (row) => rounded(row.rating), by: (row) => row.rating, isNumber: true },
    { name: "95 % interval", cell: (row) => html`<div class="interval-cell"><${Interval} low=${row.low} value=${row.rating} high=${row.high} from=${from} to=${to} /><span>${rounded(row.low)} to ${rounded(row.high)}</span></div>`, by: (row) => row.high - row.low },
    { name: "Votes", cell: (row) => row.votes.toLocaleString("en"), by: (row) => row.votes, isNumber: true },
  ];
  return html`<${Table} label="Ratings" columns=${columns} rows=${rows} keyOf=${(/** @type {LeaderRow} */ row) => row.model} />
    ${rows.some((row) => row.collecting) && html`<p class="hint">“collecting”: fewer than 30 votes, so the interval is still wide.</p>`}`;
}

/** @param {{matrix: {models: string[], wins: number[][], games: number[][]}, onOpen: (a: string, b: string) => void}} props */
export function WinRates({ matrix, onOpen }) {
  const { models, wins, games } = matrix;
  const values = wins.map((row, i) => row.map((won, j) => (i !== j && games[i][j] ? won / games[i][j] : null)));
  return html`<${Matrix} title="Share of points that the row won against the column" names=${models} values=${values} onOpen=${(/** @type {number} */ i, /** @type {number} */ j) => onOpen(models[i], models[j])} />
    <p class="hint">A tie is half a point. A cell leads to its battles.</p>`;
}

/** @param {{board: any, onOpen: (a: string, b: string) => void}} props */
export function BattleCounts({ board, onOpen }) {
  const percent = (/** @type {number | null} */ share) => (share === null ? "–" : `${(share * 100).toFixed(1)} %`);
  const columns = [
    { name: "Pair", cell: (/** @type {any} */ pair) => html`<button type="button" class="quiet" onClick=${() => onOpen(pair.model_a, pair.model_b)}>${pair.model_a} against ${pair.model_b}</button>`, by: (/** @type {any} */ pair) => `${pair.model_a} ${pair.model_b}` },
    { name: "Battles", cell: (/** @type {any} */ pair) => pair.battles, by: (/** @type {any} */ pair) => pair.battles, isNumber: true },
    { name: "Votes", cell: (/** @type {any} */ pair) => pair.votes, by: (/** @type {any} */ pair) => pair.votes, isNumber: true },
    { name: "Drawn next", cell: (/** @type {any} */ pair) => percent(pair.probability), by: (/** @type {any} */ pair) => pair.probability, isNumber: true },
  ];
  return html`<h2>How often each pair met</h2>
    <${Games} matrix=${board.matrix} />
    <h2>Sampling</h2>
    <p class="hint">${board.sampling_method}</p>
    ${board.sampling.length > 0 && html`<${Table} label="Sampling" columns=${columns} rows=${board.sampling} keyOf=${(/** @type {any} */ pair) => `${pair.model_a}\n${pair.model_b}`} />`}`;
}

/** @param {{matrix: {models: string[], games: number[][]}}} props */
function Games({ matrix }) {
  const { models, games } = matrix;
  const columns = [
    { name: "Model", cell: (/** @type {number} */ i) => html`<strong>${models[i]}</strong>`, by: (/** @type {number} */ i) => models[i] },
    ...models.map((name, j) => ({ name, cell: (/** @type {number} */ i) => (i === j ? "–" : games[i][j].toLocaleString("en")), by: (/** @type {number} */ i) => games[i][j], isNumber: true })),
  ];
  return models.length > 0 && html`<${Table} label="Games of each pair" columns=${columns} rows=${models.map((_, i) => i)} keyOf=${String} />`;
}

/** Months are numbered from the year 0. @type {import("../ui/plot.js").XAxis} */
const MONTHS = {
  name: "month",
  text: (number) => `${Math.floor(number / 12)}-${String((number % 12) + 1).padStart(2, "0")}`,
  steps: [1, 2, 3, 6, 12, 24, 60],
};

/** @param {{months: any[]}} props */
export function OverTime({ months }) {
  const rated = months.filter((month) => !month.error);
  const number = (/** @type {string} */ month) => Number(month.slice(0, 4)) * 12 + Number(month.slice(5, 7)) - 1;
  const models = [...new Set(rated.flatMap((month) => month.rows.map((/** @type {LeaderRow} */ row) => row.model)))];
  const series = models.slice(0, 8).map((model) => ({
    name: model,
    points: rated.flatMap((month) => month.rows.filter((/** @type {LeaderRow} */ row) => row.model === model).map((/** @type {LeaderRow} */ row) => /** @type {[number, number]} */ ([number(month.month), row.rating]))),
  }));
  const columns = [
    { name: "Month", cell: (/** @type {any} */ month) => month.month, by: (/** @type {any} */ month) => month.month },
    { name: "Votes", cell: (/** @type {any} */ month) => month.votes, by: (/** @type {any} */ month) => month.votes, isNumber: true },
    { name: "First", cell: (/** @type {any} */ month) => month.rows[0]?.model ?? html`<span class="hint">${month.error}</span>` },
  ];
  return html`${series.length > 0 && html`<${Plot} title="Rating of each month's votes" series=${series} x=${MONTHS} />`}
    ${models.length > 8 && html`<p class="hint">The plot shows the first 8 of ${models.length} models.</p>`}
    <${Table} label="Months" columns=${columns} rows=${months} keyOf=${(/** @type {any} */ month) => month.month} />`;
}

/** What the ratings rest on: method, data, what was left out and why. @param {{board: any}} props */
export function Foundations({ board }) {
  const left = Object.entries(board.excluded);
  return html`<section class="foundations">
    <h2>How this is computed</h2>
    <p>${board.method || "No ratings were fitted."}</p>
    ${board.note && html`<p>${board.note}</p>`}
    ${Object.keys(board.style).length > 0 &&
    html`<p>Effect of style, in rating points: ${Object.entries(board.style).map(([name, { effect, error }]) => `${name} ${effect.toFixed(1)} ± ${error.toFixed(1)}`).join(", ")}.</p>`}
    <p>${count(board.counts.vote?.counted ?? 0, "game")} counted${left.length ? `; left out: ${left.map(([reason, games]) => `${games} (${reason})`).join(", ")}` : ""}.</p>
    ${board.exclusions.length > 0 &&
    html`<ul class="exclusions">
      ${board.exclusions.map((/** @type {any} */ one) => html`<li>${one.kind} <code>${one.id}</code>: ${one.reason} <span class="hint">since ${one.created_at.slice(0, 10)}${one.lifted_at ? `, lifted ${one.lifted_at.slice(0, 10)}` : ""}</span></li>`)}
    </ul>`}
    ${board.data_sha256 && html`<p class="hint">Data <code>${board.data_sha256.slice(0, 16)}</code></p>`}
  </section>`;
}
