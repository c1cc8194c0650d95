/** Small charts: an interval in a table's row as our own SVG, and a matrix as a table of coloured cells. */

import { html } from "./html.js";
import { short } from "./plot.js";

const SHADES = 10; // of a matrix's cells, either side of the middle

/**
 * A value with its interval on a common scale; the numbers stand in other columns of the same row.
 * @param {{low: number, value: number, high: number, from: number, to: number}} props  from, to: ends of the scale
 */
export function Interval({ low, value, high, from, to }) {
  const x = (/** @type {number} */ v) => 2 + (96 * (v - from)) / (to - from || 1);
  const label = `${short(value)}, between ${short(low)} and ${short(high)}`;
  return html`<svg class="interval" viewBox="0 0 100 12" role="img" aria-label=${label}>
    <path d=${`M${x(low)} 6H${x(high)}M${x(low)} 2.5v7M${x(high)} 2.5v7`} />
    <circle cx=${x(value)} cy="6" r="3" />
  </svg>`;
}

/**
 * How each row does against each column, from 0 to 1: the deeper the colour, the further from one half.
 * @param {object} props
 * @param {string} props.title
 * @param {string[]} props.names
 * @param {(number | null)[][]} props.values  by row and column, null where nothing is known
 * @param {(row: number, column: number) => void} [props.onOpen]  a cell was chosen
 */
export function Matrix({ title, names, values, onOpen }) {
  const cell = (/** @type {number | null} */ value, /** @type {number} */ row, /** @type {number} */ column) => {
    if (value === null) return html`<td class="number">–</td>`;
    const shade = Math.round(Math.abs(value - 0.5) * 2 * SHADES);
    const text = `${Math.round(value * 100)} %`;
    const label = `${names[row]} against ${names[column]}: ${text}`;
    return html`<td class=${`number shade-${shade}${value < 0.5 ? " below" : ""}`}>
      ${onOpen ? html`<button type="button" aria-label=${label} onClick=${() => onOpen(row, column)}>${text}</button>` : text}
    </td>`;
  };
  return html`<figure class="plot">
    <figcaption>${title}</figcaption>
    <div class="data-table matrix" tabindex="0" role="region" aria-label=${title}>
      <table>
        <thead><tr><th scope="col">row against column</th>${names.map((name) => html`<th scope="col">${name}</th>`)}</tr></thead>
        <tbody>${names.map((name, i) => html`<tr key=${name}><th scope="row">${name}</th>${values[i].map((value, j) => cell(value, i, j))}</tr>`)}</tbody>
      </table>
    </div>
  </figure>`;
}
