/** The ratings as files: the same rows as JSON with everything they rest on, and as CSV. */

import { html } from "../ui/html.js";
import { save } from "../ui/save.js";

const COLUMNS = ["model", "rating", "low", "high", "rank_low", "rank_high", "votes", "collecting"];

/** Rows as RFC 4180 CSV; a cell that a spreadsheet would run as a formula is quoted off. @param {any[]} rows */
export function asCsv(rows) {
  const cell = (/** @type {unknown} */ value) => {
    const text = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value ?? "");
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return [COLUMNS, ...rows.map((row) => COLUMNS.map((name) => row[name]))].map((row) => `${row.map(cell).join(",")}\r\n`).join("");
}

/** @param {{board: any}} props */
export function Exports({ board }) {
  const asJson = () => save(new Blob([JSON.stringify(board, null, 2)], { type: "application/json" }), "leaderboard.json");
  const csv = () => save(new Blob([asCsv(board.rows)], { type: "text/csv" }), "leaderboard.csv");
  return html`<p class="row end">
    <button type="button" class="quiet" disabled=${!board.rows.length} onClick=${csv}>CSV</button>
    <button type="button" class="quiet" onClick=${asJson}>JSON</button>
  </p>`;
}
