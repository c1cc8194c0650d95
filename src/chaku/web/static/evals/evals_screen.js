/** Evals: the evaluation runs of this machine, and one of them, live while it goes. */

/** @import {Judgement, Question} from "./types.js" */
import { goTo } from "../app/address.js";
import { get, post } from "../data/api.js";
import { Resource } from "../data/resource.js";
import { Select } from "../ui/field.js";
import { html, useLayoutEffect, useMemo } from "../ui/html.js";
import { Empty, Shown } from "../ui/states.js";
import { addStyle } from "../ui/style.js";
import { Table } from "../ui/table.js";
import { RunView } from "./run_view.js";

export const styled = addStyle(new URL("evals.css", import.meta.url));

const LIVE_MS = 4_000;

/** @param {import("../app/app.js").ScreenProps} props */
export function EvalsScreen({ route }) {
  const { run } = route.params;
  useLayoutEffect(() => void (document.title = `${run ?? "Evals"} · chaku`), [run]);
  const runs = useMemo(() => new Resource(() => get("/evals").then((found) => found.runs), (found) => !found.length), []);
  useLayoutEffect(() => runs.follow(LIVE_MS), [runs]);
  return html`<main class="screen">
    ${run
      ? html`<${OneRun} key=${run} name=${run} against=${route.query.get("against") ?? ""} runs=${runs} />`
      : html`<h1>Evals</h1><${Shown} resource=${runs} draw=${(/** @type {any[]} */ rows) => html`<${Table} label="Evaluation runs" columns=${COLUMNS} rows=${rows} keyOf=${(/** @type {any} */ row) => row.name} />`} empty=${NONE} />`}
  </main>`;
}

const NONE = html`<${Empty} title="No evaluation yet" command="chaku eval run chaku-80 -m A -m B --judge J">
  Runs below the folder that <code>chaku serve --evals</code> names are listed here while they go.
<//>`;

/** @param {{name: string, against: string, runs: Resource<any>}} props */
function OneRun({ name, against, runs }) {
  const here = `/evals/${encodeURIComponent(name)}`;
  const query = against ? `?against=${encodeURIComponent(against)}` : "";
  const found = useMemo(() => new Resource(() => get(`${here}${query}`)), [here, query]);
  useLayoutEffect(() => found.follow(LIVE_MS, (run) => run.is_done), [found]);
  const disagree = async (/** @type {Judgement} */ { key }, /** @type {Question} */ _, /** @type {string} */ outcome) => {
    await post(`${here}/disagree`, { key, outcome });
  };
  const others = (/** @type {any[]} */ rows) => [{ value: "", label: "none" }, ...rows.filter((row) => row.name !== name).map((row) => ({ value: row.name, label: row.name }))];
  const choose = (/** @type {string} */ other) => goTo(`${here}${other ? `?against=${encodeURIComponent(other)}` : ""}`);
  return html`<p><a href="/evals">Evals</a></p>
    <h1>${name}</h1>
    <${Shown} resource=${runs} draw=${(/** @type {any[]} */ rows) => rows.length > 1 && html`<div class="row eval-filters"><${Select} label="Compare with the run" value=${against} options=${others(rows)} onChoose=${choose} /></div>`} />
    <${Shown} resource=${found} draw=${(/** @type {any} */ run) => html`<${RunView} run=${run} onDisagree=${disagree} />`} />`;
}

/** @param {[number, number]} numbers */
const done = ([now, all]) => (now < all ? `${now} of ${all}` : String(now));

/** @type {import("../ui/table.js").Column<any>[]} */
const COLUMNS = [
  { name: "Run", cell: (row) => html`<a href=${`/evals/${encodeURIComponent(row.name)}`}>${row.name}</a>`, by: (row) => row.name },
  { name: "State", cell: (row) => row.error ?? (row.is_done ? "done" : "not done"), by: (row) => row.error ?? Number(row.is_done) },
  { name: "Models", cell: (row) => (row.models ?? []).join(", ") },
  { name: "Judge", cell: (row) => row.judge ?? "–", by: (row) => row.judge },
  { name: "Answers", cell: (row) => (row.answers ? done(row.answers) : "–"), by: (row) => row.answers?.[0], isNumber: true },
  { name: "Judgements", cell: (row) => (row.judgements ? done(row.judgements) : "–"), by: (row) => row.judgements?.[0], isNumber: true },
  { name: "Begun", cell: (row) => html`<time>${row.created ? new Date(row.created).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" }) : "–"}</time>`, by: (row) => row.created },
];
