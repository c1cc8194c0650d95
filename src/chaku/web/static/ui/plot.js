/** A plot of lines over steps, drawn by uPlot, which comes with the first one; with the same numbers as a table beside it. */

import { Figure } from "./figure.js";
import { html, useLayoutEffect, useRef, useState } from "./html.js";
import { addStyle } from "./style.js";
import { Table } from "./table.js";

/** @typedef {{name: string, points: [number, number][]}} Series  x and y, by x */

const HEIGHT = 240;
const TABLE_ROWS = 50;
/** Lines are told apart without their colours too. */
const DASHES = [[], [8, 4], [2, 3], [10, 3, 2, 3], [14, 4], [4, 4], [1, 5], [8, 3, 2, 3, 2, 3]];

/** @type {Promise<any> | null} */
let loading = null;

function load() {
  return (loading ??= (async () => {
    await addStyle(new URL("../vendor/uplot/uplot.css", import.meta.url));
    return (await import("../vendor/uplot/uplot.js")).default;
  })().catch((error) => {
    loading = null;
    throw error;
  }));
}

/** What is on the x axis. @typedef {{name: string, text: (value: number) => string, steps?: number[]}} XAxis  steps: distances of its marks */

/** Steps and months are whole: 1, 2, 5, 10, ... */
const WHOLE_STEPS = Array.from({ length: 9 }, (_, power) => [1, 2, 5].map((factor) => factor * 10 ** power)).flat();

/** @type {XAxis} */
const STEPS = { name: "step", text: (value) => value.toLocaleString("en") };

/** @param {{title: string, series: Series[], x?: XAxis, isLog?: boolean}} props */
export function Plot({ title, series, x = STEPS, isLog = false }) {
  const data = aligned(series);
  const table = () => html`<${Numbers} title=${title} series=${series} data=${data} x=${x} />`;
  const picture = () => html`<${Lines} title=${title} series=${series} data=${data} x=${x} isLog=${isLog} instead=${table} />`;
  return html`<${Figure} title=${title} picture=${picture} table=${table} />`;
}

/** @param {{title: string, series: Series[], data: any[][], x: XAxis, isLog: boolean, instead: () => any}} props  instead: without uPlot */
function Lines({ title, series, data, x, isLog, instead }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const [isLost, setLost] = useState(false);
  const shape = `${isLog} ${series.map(({ name }) => name).join("\n")}`;
  const chart = useRef(/** @type {any} */ (null));
  const newest = useRef(data);
  newest.current = data;
  useLayoutEffect(() => {
    const place = box.current;
    if (!place) return;
    let isGone = false;
    const watcher = new ResizeObserver(() => chart.current?.setSize({ width: place.clientWidth, height: HEIGHT }));
    load().then(
      (UPlot) => {
        if (isGone) return;
        place.replaceChildren();
        chart.current = new UPlot(optionsOf(series, x, isLog, place), newest.current, place);
        watcher.observe(place);
      },
      () => setLost(true),
    );
    return () => {
      isGone = true;
      watcher.disconnect();
      chart.current?.destroy();
      chart.current = null;
    };
  }, [shape]);
  useLayoutEffect(() => chart.current?.setData(data));
  if (isLost) return instead();
  return html`<div class="plot-area" ref=${box} role="img" aria-label=${`${title}: ${series.map(spoken).join("; ")}`}></div>
    ${series.length > 1 && html`<${Legend} series=${series} />`}`;
}

/** @param {{series: Series[]}} props */
function Legend({ series }) {
  return html`<ul class="legend">
    ${series.map(
      ({ name }, i) => html`<li>
        <svg viewBox="0 0 28 8" aria-hidden="true"><path d="M0 4h28" class=${`series-${(i % 8) + 1}`} stroke-dasharray=${DASHES[i % 8].join(" ")} /></svg>${name}
      </li>`,
    )}
  </ul>`;
}

/** @param {{title: string, series: Series[], data: any[][], x: XAxis}} props */
function Numbers({ title, series, data, x }) {
  const [xs, ...ys] = data;
  const stride = Math.max(1, Math.ceil(xs.length / TABLE_ROWS));
  const rows = xs.map((_, i) => i).filter((i) => i % stride === 0 || i === xs.length - 1);
  const columns = [
    { name: x.name, cell: (/** @type {number} */ i) => x.text(xs[i]), by: (/** @type {number} */ i) => xs[i], isNumber: true },
    ...series.map(({ name }, n) => ({
      name,
      cell: (/** @type {number} */ i) => (ys[n][i] == null ? "–" : short(ys[n][i])),
      by: (/** @type {number} */ i) => ys[n][i],
      isNumber: true,
    })),
  ];
  return html`<${Table} label=${title} columns=${columns} rows=${rows} keyOf=${String} />`;
}

/** All series over the same x, as uPlot wants them. @param {Series[]} series @returns {any[][]} */
export function aligned(series) {
  const xs = [...new Set(series.flatMap(({ points }) => points.map(([x]) => x)))].sort((a, b) => a - b);
  return [xs, ...series.map(({ points }) => (known => xs.map((x) => known.get(x)))(new Map(points)))];
}

/** @param {Series[]} series @param {XAxis} x @param {boolean} isLog @param {HTMLElement} place */
function optionsOf(series, x, isLog, place) {
  const style = getComputedStyle(place);
  const token = (/** @type {string} */ name) => {
    place.style.color = `var(${name})`;
    const { color } = style;
    place.style.color = "";
    return color;
  };
  const ink = token("--ink-2");
  const range = (/** @type {any} */ { data: [xs] }, /** @type {number} */ from, /** @type {number} */ to) => (xs.length === 1 ? [xs[0] - 1, xs[0] + 1] : [from, to]);
  const grid = { stroke: token("--line"), width: 1 };
  return {
    width: place.clientWidth || 400,
    height: HEIGHT,
    legend: { show: false },
    scales: { x: { time: false, range }, y: { distr: isLog ? 3 : 1 } },
    axes: [
      { stroke: ink, grid, ticks: grid, label: x.name, labelSize: 18, size: 34, values: (/** @type {any} */ _, /** @type {number[]} */ values) => values.map(x.text), incrs: x.steps ?? WHOLE_STEPS },
      { stroke: ink, grid, ticks: grid, size: 62, values: (/** @type {any} */ _, /** @type {any[]} */ values) => values.map((v) => (v == null ? "" : short(v))) },
    ],
    series: [
      {},
      ...series.map(({ name }, i) => ({
        label: name,
        stroke: token(`--series-${(i % 8) + 1}`),
        width: 1.75,
        dash: DASHES[i % 8],
        spanGaps: true,
        points: { show: series[i].points.length < 3 },
      })),
    ],
  };
}

/** What a screen reader hears of a line. @param {Series} series */
function spoken({ name, points }) {
  if (!points.length) return `${name} has no points`;
  return `${name} from ${short(points[0][1])} to ${short(/** @type {[number, number]} */ (points.at(-1))[1])}`;
}

/** @param {number} value */
export function short(value) {
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.001 || size >= 1e9)) return value.toExponential(1);
  if (size >= 10_000) return new Intl.NumberFormat("en", { notation: "compact", maximumFractionDigits: 1 }).format(value);
  return String(Number(value.toPrecision(4)));
}
