/** What the page says beside the chat: short notices that pass, and cards for what went wrong. */

/** @import {Problem} from "../data/types.js" */
import { copyText } from "./clipboard.js";
import { html, useState } from "./html.js";
import { IconButton } from "./icons.js";
import { Observable, useChanges } from "../data/observable.js";

/** @typedef {{text: string, action?: string, onAction?: () => void, isError?: boolean}} Notice */

const SHOWN_MS = 8_000;

export class Notices extends Observable {
  constructor() {
    super();
    /** @type {Notice | null} */
    this.current = null;
    this._timer = 0;
  }

  /** @param {Notice} notice */
  show(notice) {
    this.current = notice;
    this.release();
    this.changed();
  }

  /** While someone looks at it, it stays. */
  hold() {
    clearTimeout(this._timer);
  }

  release() {
    clearTimeout(this._timer);
    if (this.current && !this.current.isError) this._timer = setTimeout(() => this.hide(), SHOWN_MS);
  }

  hide() {
    clearTimeout(this._timer);
    this.current = null;
    this.changed();
  }
}

/** @param {{notices: Notices}} props */
export function Toast({ notices }) {
  useChanges(notices);
  const notice = notices.current;
  return html`<div class="toast-area" role="status">
    ${notice &&
    html`<div
      class=${`toast${notice.isError ? " error" : ""}`}
      onPointerEnter=${() => notices.hold()}
      onPointerLeave=${() => notices.release()}
      onFocusIn=${() => notices.hold()}
      onFocusOut=${() => notices.release()}
    >
      <span>${notice.text}</span>
      ${notice.action &&
      html`<button type="button" class="quiet" onClick=${() => (notices.hide(), notice.onAction?.())}>${notice.action}</button>`}
      <${IconButton} icon="close" label="Dismiss" onClick=${() => notices.hide()} />
    </div>`}
  </div>`;
}

/** Ways out of failures whose server says none. @type {Record<string, string>} */
const FIXES = {
  context_length_exceeded: "Start a new chat, edit an earlier message, or lower the answer's maximum length.",
  rate_limit_exceeded: "Wait a moment and try again.",
  model_not_found: "Choose another model above.",
  unreachable: "Check that `chaku serve` is still running.",
};

/**
 * What happened, why, what to do.
 * @param {{title: string, problem: Problem, onRetry?: () => void, retry?: string}} props
 */
export function ErrorCard({ title, problem, onRetry, retry = "Try again" }) {
  const [copied, setCopied] = useState(false);
  const fix = problem.fix ?? FIXES[problem.code ?? ""];
  const details = { ...problem, page: location.href, time: new Date().toISOString() };
  const copy = async () => setCopied(await copyText(JSON.stringify(details, null, 2)));
  return html`<div class="error-card" role="group" aria-label=${title}>
    <p class="error-title">${title}</p>
    <p>${problem.message}</p>
    ${fix && html`<p class="fix"><span>What to do</span> ${fix}</p>`}
    <p class="row">
      ${onRetry && html`<button type="button" class="button" onClick=${onRetry}>${retry}</button>`}
      <button type="button" class="quiet" onClick=${copy}>${copied ? "Copied" : "Copy details"}</button>
      ${problem.code && html`<code>${problem.code}</code>`}
    </p>
  </div>`;
}

/** What stands where a part of the page broke; the rest goes on. @param {unknown} error @param {() => void} onRetry */
export function Broken(error, onRetry) {
  const message = error instanceof Error ? error.message : String(error);
  const problem = { code: "page_error", message, fix: "Reload the page; if it happens again, please report it with the details." };
  return html`<div class="broken"><${ErrorCard} title="This part of the page can't be shown" problem=${problem} onRetry=${onRetry} /></div>`;
}
