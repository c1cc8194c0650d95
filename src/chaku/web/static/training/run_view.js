/** One run: how it goes, its curves with those of others over them, what it answers, what it was made with. */

import { goTo } from "../app/address.js";
import { get } from "../data/api.js";
import { useChanges } from "../data/observable.js";
import { Resource } from "../data/resource.js";
import { seconds } from "../ui/format.js";
import { html, useLayoutEffect, useMemo, useState } from "../ui/html.js";
import { Select } from "../ui/field.js";
import { Plot, short } from "../ui/plot.js";
import { Progress, Shown } from "../ui/states.js";
import { Table } from "../ui/table.js";

const EVERY_MS = 2_000;
const MAX_OVERLAYS = 7;
const CURVES = [
  { of: "loss", title: "Loss" },
  { of: "heldout_loss", title: "Held-out loss" },
  { of: "lr", title: "Learning rate" },
  { of: "grad_norm", title: "Gradient norm" },
  { of: "tokens_per_s", title: "Tokens per second" },
  { of: "memory_bytes", title: "Memory in GB", scale: 1e-9 },
];

/** A run that keeps what it has and fetches the steps after it. @param {string} name */
function runOf(name) {
  return new Resource(async (/** @type {any} */ before) => {
    const known = before?.points ?? [];
    const after = known.at(-1)?.step ?? 0;
    const run = await get(`/runs/${encodeURIComponent(name)}?after=${after}`);
    if (run.steps < after) return get(`/runs/${encodeURIComponent(name)}`); // it went back to a checkpoint
    return { ...run, points: [...known, ...run.points] };
  });
}

/** @param {{name: string, others: string[], runs: Resource<any[]>}} props */
export function RunView({ name, others, runs }) {
  useChanges(runs);
  const run = useMemo(() => runOf(name), [name]);
  const shown = others.filter((other) => other !== name).slice(0, MAX_OVERLAYS);
  const overlays = useMemo(() => shown.map(runOf), [shown.join("\n")]);
  useLayoutEffect(() => run.follow(EVERY_MS, (data) => Boolean(data.finished)), [run]);
  const free = (runs.data ?? []).map((row) => row.name).filter((other) => other !== name && !shown.includes(other));
  const overlay = (/** @type {string[]} */ names) =>
    goTo(`/training/${encodeURIComponent(name)}${names.length ? `?with=${names.map(encodeURIComponent).join(",")}` : ""}`);
  return html`
    <p><a href="/training">Training</a></p>
    <h1 dir="auto">${name}</h1>
    <div class="row overlays">
      ${shown.map(
        (other) => html`<span class="chip">${other} <button type="button" aria-label=${`Remove ${other}`} onClick=${() => overlay(shown.filter((n) => n !== other))}>×</button></span>`,
      )}
      ${free.length > 0 &&
      shown.length < MAX_OVERLAYS &&
      html`<${Select}
        label="Overlay"
        value=""
        options=${["", ...free].map((other) => ({ value: other, label: other || "choose a run" }))}
        onChoose=${(/** @type {string} */ other) => other && overlay([...shown, other])}
      />`}
    </div>
    <${Shown}
      resource=${run}
      draw=${(/** @type {any} */ data) => html`
        <${Head} run=${data} />
        <${Curves} run=${data} overlays=${overlays} />
        <${Samples} events=${data.events} />
        <${Config} run=${data} overlays=${overlays} />
      `}
    />
  `;
}

/** @param {{run: any}} props */
function Head({ run }) {
  const last = run.points.at(-1) ?? {};
  const { steps, planned_steps: planned } = run;
  const left = planned && !run.finished && last.seconds ? (planned - steps) * median(run.points.slice(-20).map((/** @type {any} */ p) => p.seconds)) : null;
  const facts = {
    State: run.finished ? "finished" : "not finished",
    Step: planned ? `${steps.toLocaleString("en")} of ${planned.toLocaleString("en")}` : steps.toLocaleString("en"),
    Loss: last.loss == null ? (steps ? "not a number" : "–") : short(last.loss),
    "Held out": run.heldout_loss == null ? "–" : short(run.heldout_loss),
    "Tokens/s": last.tokens_per_s == null ? "–" : short(last.tokens_per_s),
    Memory: last.memory_bytes == null ? "–" : `${(last.memory_bytes / 1e9).toFixed(1)} GB`,
    Time: seconds(run.seconds),
    ...(left === null ? {} : { "Time left": seconds(left) }),
    ...(run.dollars == null ? {} : { Dollars: run.dollars.toFixed(2) }),
  };
  return html`<dl class="run-facts">
      ${Object.entries(facts).map(([name, value]) => html`<div><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl>
    ${planned && !run.finished && html`<${Progress} value=${steps / planned} label="Steps done" />`}
    ${steps > 0 && last.loss == null && html`<p class="complaint" role="alert">The loss is not a number since step ${nanSince(run.points)}.</p>`}`;
}

/** @param {any[]} points */
function nanSince(points) {
  return points[points.findLastIndex((point) => point.loss != null) + 1]?.step ?? 1;
}

/** @param {number[]} values */
function median(values) {
  return [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

/** @param {{run: any, overlays: Resource<any>[]}} props */
function Curves({ run, overlays }) {
  const others = useLoaded(overlays);
  const [isLog, setLog] = useState(false);
  const [smoothing, setSmoothing] = useState(0);
  const all = [run, ...others];
  return html`<div class="row plot-controls">
      <label><input type="checkbox" checked=${isLog} onChange=${() => setLog(!isLog)} /> Log axis</label>
      <label>Smoothing <input type="range" min="0" max="0.98" step="0.02" value=${smoothing} onInput=${(/** @type {any} */ event) => setSmoothing(Number(event.target.value))} /></label>
    </div>
    <div class="plots">
      ${CURVES.map(({ of, title, scale = 1 }) => {
        const series = all
          .map((one) => ({ name: one.name, points: smoothed(pointsOf(one.points, of, scale), smoothing) }))
          .filter(({ points }) => points.length);
        return series.length > 0 && html`<${Plot} key=${of} title=${title} series=${series} isLog=${isLog && of !== "lr"} />`;
      })}
    </div>`;
}

/** @param {any[]} points @param {string} of @param {number} scale @returns {[number, number][]} */
function pointsOf(points, of, scale) {
  return points.flatMap((point) => (point[of] == null ? [] : [/** @type {[number, number]} */ ([point.step, point[of] * scale])]));
}

/** The exponential mean, begun without a bias to zero. @param {[number, number][]} points @param {number} weight @returns {[number, number][]} */
function smoothed(points, weight) {
  let sum = 0;
  let total = 0;
  return points.map(([x, y]) => {
    sum = sum * weight + y;
    total = total * weight + 1;
    return [x, sum / total];
  });
}

/** The overlays that have come; each is fetched once. @param {Resource<any>[]} overlays @returns {any[]} */
function useLoaded(overlays) {
  const [, setCount] = useState(0);
  useLayoutEffect(() => {
    for (const overlay of overlays) if (!overlay.data) void overlay.load().then(() => setCount((n) => n + 1));
  }, [overlays]);
  return overlays.flatMap((overlay) => (overlay.data ? [overlay.data] : []));
}

/** @param {{events: any[]}} props */
function Samples({ events }) {
  const samples = events.filter((event) => event.event === "sample");
  const prompts = [...new Set(samples.map((event) => event.prompt))];
  if (!prompts.length) return null;
  return html`<h2>Sample answers</h2>
    ${prompts.map(
      (prompt) => html`<section class="sample">
        <h3 dir="auto">${prompt}</h3>
        <dl>
          ${samples
            .filter((event) => event.prompt === prompt)
            .slice(-6)
            .map((event) => html`<div><dt>after step ${event.step.toLocaleString("en")}</dt><dd dir="auto">${event.answer}</dd></div>`)}
        </dl>
      </section>`,
    )}`;
}

/** What the run was made with: all of it, or where the overlaid runs differ. @param {{run: any, overlays: Resource<any>[]}} props */
function Config({ run, overlays }) {
  const all = [run, ...useLoaded(overlays)];
  const names = [...new Set(all.flatMap((one) => Object.keys(one.config)))];
  const text = (/** @type {any} */ value) => (value === null || value === undefined ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value));
  const rows = names.filter((name) => all.length === 1 || new Set(all.map((one) => text(one.config[name]))).size > 1);
  const columns = [
    { name: "Key", cell: (/** @type {string} */ name) => html`<code>${name}</code>`, by: (/** @type {string} */ name) => name },
    ...all.map((one) => ({ name: one.name, cell: (/** @type {string} */ name) => text(one.config[name]) })),
  ];
  return html`<h2>${all.length === 1 ? "Configuration" : "Where the configurations differ"}</h2>
    ${rows.length
      ? html`<${Table} label="Configuration" columns=${columns} rows=${rows} keyOf=${String} />`
      : html`<p class="hint">They do not differ.</p>`}`;
}
