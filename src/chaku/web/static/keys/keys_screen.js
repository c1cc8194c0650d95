/** API keys: who has one, its limits, what was used; a new one, and the end of one. */

import { get, post, remove } from "../data/api.js";
import { Resource } from "../data/resource.js";
import { copyText } from "../ui/clipboard.js";
import { ago } from "../ui/format.js";
import { html, useLayoutEffect, useMemo, useState } from "../ui/html.js";
import { Icon } from "../ui/icons.js";
import { Shown } from "../ui/states.js";
import { addStyle } from "../ui/style.js";
import { Table } from "../ui/table.js";

export const styled = addStyle(new URL("./keys.css", import.meta.url));

/** @param {import("../app/app.js").ScreenProps} props */
export function KeysScreen({ attempt, say }) {
  const keys = useMemo(() => new Resource(() => get("/keys")), []);
  const [token, setToken] = useState("");
  useLayoutEffect(() => void keys.load(), [keys]);
  useLayoutEffect(() => void (document.title = "Keys · chaku"), []);
  const revoke = (/** @type {any} */ key) =>
    confirm(`Revoke ${key.name} for good?`) &&
    attempt(remove(`/keys/${encodeURIComponent(key.id)}`).then(() => (say(`${key.name} is revoked`), keys.load())));
  const create = (/** @type {any} */ asked) => attempt(post("/keys", asked).then((made) => (setToken(made.token), keys.load())));
  const actions = {
    name: "",
    cell: (/** @type {any} */ key) =>
      key.state === "active" &&
      html`<button type="button" class="quiet" onClick=${() => revoke(key)} aria-label=${`Revoke ${key.name}`}>Revoke</button>`,
  };
  return html`<main class="screen">
    <h1>Keys</h1>
    <${NewKey} onCreate=${create} />
    ${token &&
    html`<p role="status">This is the key. It can't be shown again.</p>
      <div class="row">
        <pre tabindex="0"><code>${token}</code></pre>
        <button type="button" class="quiet" onClick=${async () => say((await copyText(token)) ? "The key is copied" : "This browser does not allow copying")}>Copy the key</button>
      </div>`}
    <${Shown}
      resource=${keys}
      draw=${(/** @type {any} */ { keys: rows }) =>
        html`<p class="hint">Prompt and Answer count tokens. Dollars follow from the prices of chaku serve --price.</p>
          <${Table} label="Keys" columns=${[...COLUMNS, actions]} rows=${rows} keyOf=${(/** @type {any} */ key) => key.id} />`}
    />
  </main>`;
}

/** @param {{onCreate: (asked: any) => Promise<void>}} props */
function NewKey({ onCreate }) {
  const submit = async (/** @type {any} */ event) => {
    event.preventDefault();
    const form = event.target;
    const given = Object.fromEntries(new FormData(form));
    const number = (/** @type {string} */ name) => (given[name] ? Number(given[name]) : null);
    await onCreate({
      name: String(given.name).trim(),
      scopes: given.admin ? ["admin"] : ["infer", "page"],
      expires_in_days: number("days"),
      requests_per_minute: number("requests"),
      tokens_per_day: number("tokens"),
    });
    form.reset();
  };
  return html`<details>
    <summary class="button"><${Icon} name="plus" />New key</summary>
    <form class="new-key" onSubmit=${submit}>
      <p class="row">
        <label>Name <input name="name" required maxlength="64" autocomplete="off" /></label>
        <label>Days until it expires <input name="days" type="number" min="1" placeholder="never" /></label>
        <label>Requests per minute <input name="requests" type="number" min="1" placeholder="no limit" /></label>
        <label>Tokens per day <input name="tokens" type="number" min="1" placeholder="no limit" /></label>
      </p>
      <label><input name="admin" type="checkbox" /> Administrator</label>
      <button type="submit" class="button primary">Create the key</button>
    </form>
  </details>`;
}

/** @type {Record<string, string>} */
const DOTS = { active: "ready", expired: "busy", revoked: "down" };

/** @type {import("../ui/table.js").Column<any>[]} */
const COLUMNS = [
  { name: "Name", cell: (key) => html`<strong>${key.name}</strong><br /><small>${key.prefix}…</small>`, by: (key) => key.name },
  { name: "State", cell: (key) => html`<span class="state"><span class=${`dot ${DOTS[key.state]}`}></span>${key.state}</span>`, by: (key) => key.state },
  { name: "Scopes", cell: (key) => key.scopes.join(", ") },
  { name: "Limits", cell: limits },
  { name: "Last used", cell: (key) => html`<time>${key.last_used_at ? ago(new Date(key.last_used_at), new Date()) : "never"}</time>`, by: (key) => key.last_used_at },
  { name: "Requests", cell: (key) => count(key.usage.num_requests), by: (key) => key.usage.num_requests, isNumber: true },
  { name: "Prompt", cell: (key) => count(key.usage.prompt_tokens), by: (key) => key.usage.prompt_tokens, isNumber: true },
  { name: "Answer", cell: (key) => count(key.usage.completion_tokens), by: (key) => key.usage.completion_tokens, isNumber: true },
  { name: "Dollars", cell: (key) => key.usage.dollars.toFixed(2), by: (key) => key.usage.dollars, isNumber: true },
];

/** @param {any} key */
function limits(key) {
  const parts = Object.entries(key.limits).map(([name, value]) =>
    name === "models" ? value.join(" ") : `${count(value)} ${name.replaceAll("_", " ")}`,
  );
  if (key.expires_at) parts.push(`until ${key.expires_at.slice(0, 10)}`);
  return html`<span class="limits">${parts.join(", ") || "none"}</span>`;
}

/** @param {number} number */
const count = (number) => number.toLocaleString("en");
