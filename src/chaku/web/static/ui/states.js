/** What stands where data will be: while it comes, when it failed, when there is none. */

/** @import {Resource} from "../data/resource.js" */
import { useChanges } from "../data/observable.js";
import { html } from "./html.js";
import { ErrorCard } from "./notices.js";

/**
 * Shows a resource's data with `draw`, or what there is instead.
 * @param {object} props
 * @param {Resource<any>} props.resource
 * @param {(data: any) => any} props.draw
 * @param {any} [props.empty]
 */
export function Shown({ resource, draw, empty }) {
  useChanges(resource);
  if (resource.isEmpty && empty) return empty;
  if (resource.data !== null) {
    return html`${resource.problem && html`<p class="offline" role="alert">${resource.problem.message} What follows is from before.</p>`}${draw(resource.data)}`;
  }
  if (resource.problem) {
    return html`<${ErrorCard} title="This can't be loaded" problem=${resource.problem} onRetry=${() => resource.load()} />`;
  }
  return html`<p class="hint" aria-busy="true">Loading…</p>`;
}

/** One sentence that teaches, and the command. @param {{title: string, children: any, command?: string}} props */
export function Empty({ title, children, command }) {
  return html`<div class="empty-state">
    <h2>${title}</h2>
    <p>${children}</p>
    ${command && html`<pre tabindex="0"><code>${command}</code></pre>`}
  </div>`;
}

/** How far something is. @param {{value: number, label: string}} props  value from 0 to 1 */
export function Progress({ value, label }) {
  const percent = Math.round(Math.max(0, Math.min(1, value)) * 100);
  return html`<progress max="100" value=${percent} aria-label=${label}>${percent} %</progress>`;
}
