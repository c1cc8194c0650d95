/** A table that scrolls by itself under a head that stays, sorted by the column that was chosen. */

import { html, useState } from "./html.js";
import { Icon } from "./icons.js";

/**
 * @template Row
 * @typedef {object} Column
 * @property {string} name
 * @property {(row: Row) => any} cell
 * @property {(row: Row) => string | number | null | undefined} [by]  what the column sorts by; without it, it does not
 * @property {boolean} [isNumber]
 */

/**
 * @param {object} props
 * @param {string} props.label
 * @param {Column<any>[]} props.columns
 * @param {any[]} props.rows
 * @param {(row: any) => string} props.keyOf
 * @param {{column: string, isDown: boolean} | null} [props.start]  sorted so at first
 */
export function Table({ label, columns, rows, keyOf, start = null }) {
  const [order, setOrder] = useState(start);
  const by = columns.find((column) => column.name === order?.column)?.by;
  const sorted = by && order ? [...rows].sort((a, b) => compare(by(a), by(b)) * (order.isDown ? -1 : 1)) : rows;
  const turn = (/** @type {string} */ column) =>
    setOrder(order?.column === column ? { column, isDown: !order.isDown } : { column, isDown: false });
  return html`<div class="data-table" tabindex="0" role="region" aria-label=${label}>
    <table>
      <thead>
        <tr>
          ${columns.map(({ name, by: key, isNumber }) => {
            const isChosen = order?.column === name;
            return html`<th
              scope="col"
              class=${isNumber ? "number" : ""}
              aria-sort=${isChosen ? (order.isDown ? "descending" : "ascending") : undefined}
            >
              ${key
                ? html`<button type="button" onClick=${() => turn(name)}>
                    ${name}${isChosen && html`<${Icon} name=${order.isDown ? "chevron" : "up"} />`}
                  </button>`
                : name}
            </th>`;
          })}
        </tr>
      </thead>
      <tbody>
        ${sorted.map(
          (row) => html`<tr key=${keyOf(row)}>
            ${columns.map(({ cell, isNumber }) => html`<td class=${isNumber ? "number" : ""}>${cell(row)}</td>`)}
          </tr>`,
        )}
      </tbody>
    </table>
  </div>`;
}

/** What is missing comes last. @param {string | number | null | undefined} a @param {string | number | null | undefined} b */
function compare(a, b) {
  if (a == null || b == null) return a == null ? (b == null ? 0 : 1) : -1;
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b));
}
