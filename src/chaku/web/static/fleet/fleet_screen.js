/** The fleet: the workers of this gateway, how to add one, and the last requests with their times. */

import { get, post } from "../data/api.js";
import { Resource } from "../data/resource.js";
import { copyText } from "../ui/clipboard.js";
import { Dialog } from "../ui/dialog.js";
import { ago, seconds } from "../ui/format.js";
import { html, useLayoutEffect, useMemo, useState } from "../ui/html.js";
import { size } from "../ui/size.js";
import { Shown } from "../ui/states.js";
import { Table } from "../ui/table.js";

const EVERY_MS = 2_000;

/** @param {import("../app/app.js").ScreenProps} props */
export function FleetScreen({ session, attempt, say }) {
  const fleet = useMemo(() => new Resource(() => get("/fleet")), []);
  const [logsOf, setLogsOf] = useState(/** @type {string | null} */ (null));
  useLayoutEffect(() => fleet.follow(EVERY_MS), [fleet]);
  useLayoutEffect(() => void (document.title = "Fleet · chaku"), []);
  const steer = (/** @type {any} */ worker, /** @type {string} */ what, /** @type {string} */ done) =>
    attempt(post(`/fleet/${encodeURIComponent(worker.name)}/${what}`).then(() => (say(`${worker.name} ${done}`), fleet.load())));
  const actions = {
    name: "",
    cell: (/** @type {any} */ worker) =>
      worker.state !== "gone" &&
      html`<span class="row">
        <button type="button" class="quiet" onClick=${() => setLogsOf(worker.name)} aria-label=${`Log of ${worker.name}`}>Log</button>
        <button type="button" class="quiet" onClick=${() => steer(worker, "reload", "reloads its model")} aria-label=${`Reload ${worker.name}`}>Reload</button>
        <button type="button" class="quiet" onClick=${() => steer(worker, "drain", "drains, then ends")} aria-label=${`Drain ${worker.name}`}>Drain</button>
      </span>`,
  };
  return html`<main class="screen">
    <h1>Fleet</h1>
    <${Shown}
      resource=${fleet}
      draw=${(/** @type {any} */ { workers, requests }) => html`
        <h2>Workers</h2>
        ${workers.length
          ? html`<${Table} label="Workers" columns=${[...WORKERS, actions]} rows=${workers} keyOf=${(/** @type {any} */ worker) => worker.name} />`
          : html`<p class="hint">No worker has joined. The models of this gateway's own machine are under <a href="/library">Models</a>.</p>`}
        <${Join} needsToken=${session.asksForKeys} say=${say} />
        <h2>Last requests</h2>
        ${requests.length
          ? html`<p class="hint">The last 200, without their contents. Prompt, Cached and Answer count tokens.</p>
              <${Table} label="Last requests" columns=${REQUESTS} rows=${requests} keyOf=${(/** @type {any} */ row) => `${row.id} ${row.time}`} />`
          : html`<p class="hint">None yet. The last 200 will be listed here, with their times and without their contents.</p>`}
      `}
    />
    ${logsOf && html`<${Log} worker=${logsOf} onClose=${() => setLogsOf(null)} />`}
  </main>`;
}

/** How to add a worker. @param {{needsToken: boolean, say: (text: string) => void}} props */
function Join({ needsToken, say }) {
  const command = `chaku worker smollm2-135m --join ${location.origin}`;
  return html`<h2>Add a worker</h2>
    <p class="hint">
      Run this on a machine that this gateway reaches.
      ${needsToken &&
      html` It needs a join token in the variable <code>CHAKU_JOIN_TOKEN</code>.
        On the gateway's machine, ${html`<code>chaku fleet token create NAME</code>`} makes one.`}
    </p>
    <div class="row">
      <pre tabindex="0"><code>${command}</code></pre>
      <button type="button" class="quiet" onClick=${async () => say((await copyText(command)) ? "The command is copied" : "This browser does not allow copying")}>
        Copy the command
      </button>
    </div>`;
}

/** @param {{worker: string, onClose: () => void}} props */
function Log({ worker, onClose }) {
  const log = useMemo(() => new Resource(() => get(`/fleet/${encodeURIComponent(worker)}/logs`)), [worker]);
  useLayoutEffect(() => void log.load(), [log]);
  return html`<${Dialog} title=${`Log of ${worker}`} onClose=${onClose}>
    <${Shown} resource=${log} draw=${(/** @type {any} */ { lines }) => html`<pre tabindex="0"><code>${lines.join("\n")}</code></pre>`} />
    <p class="row end"><button type="button" class="button" onClick=${() => log.load()}>Read again</button></p>
  <//>`;
}

/** @type {Record<string, string>} */
const DOTS = { ready: "ready", joining: "loading", draining: "busy", suspect: "busy", gone: "down" };

/** @type {import("../ui/table.js").Column<any>[]} */
const WORKERS = [
  {
    name: "Worker",
    cell: (worker) => html`<strong>${worker.name}</strong><br /><small>${[worker.host, worker.device, `chaku ${worker.version}`].filter(Boolean).join(" · ")}</small>`,
    by: (worker) => worker.name,
  },
  {
    name: "State",
    cell: (worker) => html`<span class="state"><span class=${`dot ${DOTS[worker.state]}`}></span>${worker.state}</span>
      ${worker.detail && worker.state !== "ready" && html`<br /><small>${worker.detail}</small>`}`,
    by: (worker) => worker.state,
  },
  { name: "Models", cell: (worker) => worker.models.join(", "), by: (worker) => worker.models[0] },
  { name: "Running", cell: (worker) => (worker.slots == null ? worker.running : `${worker.running} of ${worker.slots}`), by: (worker) => worker.running, isNumber: true },
  { name: "Waiting", cell: (worker) => worker.waiting, by: (worker) => worker.waiting, isNumber: true },
  { name: "Tokens/s", cell: (worker) => Math.round(worker.tokens_per_s), by: (worker) => worker.tokens_per_s, isNumber: true },
  { name: "Memory", cell: (worker) => size(worker.memory_bytes), by: (worker) => worker.memory_bytes, isNumber: true },
  { name: "Up", cell: (worker) => duration(worker.uptime_s), by: (worker) => worker.uptime_s, isNumber: true },
  { name: "Last beat", cell: (worker) => seconds(worker.last_beat_s), by: (worker) => worker.last_beat_s, isNumber: true },
];

/** @type {import("../ui/table.js").Column<any>[]} */
const REQUESTS = [
  { name: "When", cell: (row) => html`<time>${ago(new Date(row.time * 1000), new Date())}</time>`, by: (row) => row.time },
  { name: "Model", cell: (row) => row.model, by: (row) => row.model },
  { name: "Route", cell: (row) => row.route, by: (row) => row.route },
  { name: "Workers", cell: (row) => row.workers.join(" → ") || "this machine", by: (row) => row.workers[0] },
  { name: "Status", cell: (row) => (row.error ? `${row.status} ${row.error}` : row.status), by: (row) => row.status },
  { name: "Queue", cell: (row) => time(row.queue_s), by: (row) => row.queue_s, isNumber: true },
  { name: "First token", cell: (row) => time(row.first_token_s), by: (row) => row.first_token_s, isNumber: true },
  { name: "Total", cell: (row) => time(row.duration_s), by: (row) => row.duration_s, isNumber: true },
  { name: "Prompt", cell: (row) => row.prompt_tokens, by: (row) => row.prompt_tokens, isNumber: true },
  { name: "Cached", cell: (row) => row.cached_tokens, by: (row) => row.cached_tokens, isNumber: true },
  { name: "Answer", cell: (row) => row.completion_tokens, by: (row) => row.completion_tokens, isNumber: true },
];

/** @param {number | null} s */
const time = (s) => (s == null ? "–" : seconds(s));
/** @param {number} s */
function duration(s) {
  if (s < 120) return `${Math.round(s)} s`;
  if (s < 7_200) return `${Math.round(s / 60)} min`;
  return s < 172_800 ? `${Math.round(s / 3_600)} h` : `${Math.round(s / 86_400)} d`;
}
