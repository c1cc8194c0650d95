/** Training: the runs of this machine, and one of them with its curves while it goes. */

import { goTo } from "../app/address.js";
import { get } from "../data/api.js";
import { Resource } from "../data/resource.js";
import { html, useLayoutEffect, useMemo } from "../ui/html.js";
import { short } from "../ui/plot.js";
import { Empty, Shown } from "../ui/states.js";
import { Table } from "../ui/table.js";
import { RunView } from "./run_view.js";

const LIST_EVERY_MS = 5_000;

/** @param {import("../app/app.js").ScreenProps} props */
export function TrainingScreen({ route }) {
  const { run } = route.params;
  useLayoutEffect(() => void (document.title = `${run ?? "Training"} · chaku`), [run]);
  const runs = useMemo(() => new Resource(() => get("/runs").then((found) => found.runs), (found) => !found.length), []);
  useLayoutEffect(() => runs.follow(LIST_EVERY_MS), [runs]);
  return html`<main class="screen">
    ${run
      ? html`<${RunView} key=${run} name=${run} others=${(route.query.get("with") ?? "").split(",").filter(Boolean)} runs=${runs} />`
      : html`<h1>Training</h1><${Shown} resource=${runs} draw=${(/** @type {any[]} */ rows) => html`<${Runs} rows=${rows} />`} empty=${NONE} />`}
  </main>`;
}

const NONE = html`<${Empty} title="No runs yet" command="chaku train examples/identity.yaml">
  Runs below the folder that <code>chaku serve --runs</code> names are listed here, from their first step on.
<//>`;

/** @param {{rows: any[]}} props */
function Runs({ rows }) {
  const newest = rows.slice(0, 8).map((row) => row.name);
  return html`
    <p class="hint">${rows.length} ${rows.length === 1 ? "run" : "runs"} on this machine</p>
    <${Table} label="Training runs" columns=${COLUMNS} rows=${rows} keyOf=${(/** @type {any} */ row) => row.name} />
    ${rows.length > 1 &&
    html`<p class="row end">
      <button type="button" class="quiet" onClick=${() => goTo(`/training/${encodeURIComponent(newest[0])}?with=${newest.slice(1).map(encodeURIComponent).join(",")}`)}>
        Overlay the newest ${newest.length}
      </button>
    </p>`}
  `;
}

/** @type {import("../ui/table.js").Column<any>[]} */
const COLUMNS = [
  { name: "Run", cell: (row) => html`<a href=${`/training/${encodeURIComponent(row.name)}`}>${row.name}</a>`, by: (row) => row.name },
  { name: "State", cell: (row) => (row.finished ? "finished" : "not finished"), by: (row) => (row.finished ? 1 : 0) },
  { name: "Steps", cell: (row) => row.steps.toLocaleString("en"), by: (row) => row.steps, isNumber: true },
  { name: "Loss", cell: (row) => (row.loss == null ? "–" : short(row.loss)), by: (row) => row.loss, isNumber: true },
  { name: "Held out", cell: (row) => (row.heldout_loss == null ? "–" : short(row.heldout_loss)), by: (row) => row.heldout_loss, isNumber: true },
  { name: "Base", cell: (row) => row.base.split("/").at(-1), by: (row) => row.base },
  { name: "Started", cell: (row) => html`<time>${new Date(row.started).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" })}</time>`, by: (row) => row.started },
];
