/** What only an operator sees: voters that do not fit, battles that were flagged, and what is left out of the ratings. */

import { get, post } from "../data/api.js";
import { Resource } from "../data/resource.js";
import { html, useLayoutEffect, useMemo, useState } from "../ui/html.js";
import { Dialog } from "../ui/dialog.js";
import { Field } from "../ui/field.js";
import { short } from "../ui/plot.js";
import { Shown } from "../ui/states.js";
import { Table } from "../ui/table.js";

const SHORTEST_REASON = 3;

/** @typedef {{kind: "voter" | "battle" | "contestant", id: string}} Subject */

/** @param {{attempt: (work: Promise<any>) => Promise<void>}} props */
export function OperatorView({ attempt }) {
  const operator = useMemo(() => new Resource(() => get("/arena/operator")), []);
  useLayoutEffect(() => operator.follow(10_000), [operator]);
  const [asked, setAsked] = useState(/** @type {Subject | null} */ (null));
  const change = (/** @type {Subject} */ subject, /** @type {string} */ reason, lifted = false) =>
    attempt(post("/arena/operator/exclusions", { ...subject, reason, lifted }).then(() => operator.load()));
  return html`<${Shown} resource=${operator} draw=${(/** @type {any} */ data) => html`<${Tables} data=${data} onExclude=${setAsked} onLift=${(/** @type {Subject} */ subject) => change(subject, "lifted", true)} />`} />
    ${asked && html`<${ReasonDialog} subject=${asked} onClose=${() => setAsked(null)} onGiven=${(/** @type {string} */ reason) => (setAsked(null), change(asked, reason))} />`}`;
}

/** @param {{data: any, onExclude: (subject: Subject) => void, onLift: (subject: Subject) => void}} props */
function Tables({ data, onExclude, onLift }) {
  const act = (/** @type {Subject} */ subject, /** @type {boolean} */ isExcluded) =>
    isExcluded
      ? html`<button type="button" class="quiet" onClick=${() => onLift(subject)}>Count again</button>`
      : html`<button type="button" class="quiet" onClick=${() => onExclude(subject)}>Exclude…</button>`;
  const voters = [
    { name: "Voter", cell: (/** @type {any} */ one) => html`<code>${one.id}</code>`, by: (/** @type {any} */ one) => one.id },
    { name: "Votes", cell: (/** @type {any} */ one) => one.votes, by: (/** @type {any} */ one) => one.votes, isNumber: true },
    { name: "e-value", cell: (/** @type {any} */ one) => html`${short(one.e_value)}${one.is_outlier && html` <strong class="complaint">outlier</strong>`}`, by: (/** @type {any} */ one) => one.e_value, isNumber: true },
    { name: "", cell: (/** @type {any} */ one) => act({ kind: "voter", id: one.id }, one.is_excluded) },
  ];
  const flagged = [
    { name: "Battle", cell: (/** @type {any} */ one) => `${one.model_a} against ${one.model_b}`, by: (/** @type {any} */ one) => `${one.model_a} ${one.model_b}` },
    { name: "Flags", cell: (/** @type {any} */ one) => one.flags.join(", "), by: (/** @type {any} */ one) => one.flags.join() },
    { name: "State", cell: (/** @type {any} */ one) => one.state, by: (/** @type {any} */ one) => one.state },
    { name: "Time", cell: (/** @type {any} */ one) => one.created_at.slice(0, 16).replace("T", " "), by: (/** @type {any} */ one) => one.created_at },
    { name: "", cell: (/** @type {any} */ one) => act({ kind: "battle", id: one.id }, one.is_excluded) },
  ];
  const sampling = [
    { name: "Pair", cell: (/** @type {any} */ one) => `${one.model_a} against ${one.model_b}`, by: (/** @type {any} */ one) => `${one.model_a} ${one.model_b}` },
    { name: "Battles", cell: (/** @type {any} */ one) => one.battles, by: (/** @type {any} */ one) => one.battles, isNumber: true },
    { name: "Votes", cell: (/** @type {any} */ one) => one.votes, by: (/** @type {any} */ one) => one.votes, isNumber: true },
    { name: "Drawn next", cell: (/** @type {any} */ one) => (one.probability === null ? "–" : `${(one.probability * 100).toFixed(1)} %`), by: (/** @type {any} */ one) => one.probability, isNumber: true },
  ];
  const exclusions = [
    { name: "What", cell: (/** @type {any} */ one) => html`${one.kind} <code>${one.id}</code>`, by: (/** @type {any} */ one) => one.kind },
    { name: "Reason", cell: (/** @type {any} */ one) => one.reason },
    { name: "Since", cell: (/** @type {any} */ one) => one.created_at.slice(0, 10), by: (/** @type {any} */ one) => one.created_at },
    { name: "", cell: (/** @type {any} */ one) => (one.lifted_at ? `lifted ${one.lifted_at.slice(0, 10)}` : act({ kind: one.kind, id: one.id }, true)) },
  ];
  const states = Object.entries(data.battles).map(([state, battles]) => `${battles} ${state}`);
  const part = (/** @type {string} */ title, /** @type {any[]} */ columns, /** @type {any[]} */ rows, /** @type {(row: any) => string} */ keyOf, /** @type {string} */ none) =>
    html`<h2>${title}</h2>${rows.length ? html`<${Table} label=${title} columns=${columns} rows=${rows} keyOf=${keyOf} />` : html`<p class="hint">${none}</p>`}`;
  return html`<p class="hint">Battles: ${states.join(", ") || "none yet"}. Exclusions and their reasons are shown to everybody.</p>
    ${part("Voters", voters, data.voters, (one) => one.id, "Nobody has voted yet.")}
    <p class="hint">An e-value of 20 or more: chance hardly explains how these votes differ from the others.</p>
    ${part("Flagged battles", flagged, data.flagged, (one) => one.id, "No battle is flagged.")}
    ${part("Exclusions", exclusions, data.exclusions, (one) => `${one.kind} ${one.id} ${one.created_at}`, "Nothing is excluded.")}
    ${part("Sampling", sampling, data.sampling, (one) => `${one.model_a}\n${one.model_b}`, "No pair can be drawn.")}`;
}

/** @param {{subject: Subject, onClose: () => void, onGiven: (reason: string) => void}} props */
function ReasonDialog({ subject, onClose, onGiven }) {
  const [reason, setReason] = useState("");
  const submit = (/** @type {Event} */ event) => (event.preventDefault(), onGiven(reason.trim()));
  return html`<${Dialog} title=${`Exclude this ${subject.kind}`} onClose=${onClose}>
    <form class="reason-form" onSubmit=${submit}>
      <p>It stays in the database and leaves the ratings. Everybody can read the reason.</p>
      <${Field} label="Reason" draw=${(/** @type {string} */ id) => html`<input id=${id} required minlength=${SHORTEST_REASON} maxlength="500" value=${reason} onInput=${(/** @type {any} */ event) => setReason(event.target.value)} />`} />
      <p class="row end"><button type="submit" class="button primary" disabled=${reason.trim().length < SHORTEST_REASON}>Exclude</button></p>
    </form>
  <//>`;
}
