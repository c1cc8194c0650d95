/** Leaderboard: ratings from the store as they stand, with what they rest on and what was left out. */

import { goTo } from "../app/address.js";
import { get } from "../data/api.js";
import { Resource } from "../data/resource.js";
import { Select } from "../ui/field.js";
import { html, useLayoutEffect, useMemo } from "../ui/html.js";
import { Empty, Shown } from "../ui/states.js";
import { addStyle } from "../ui/style.js";
import { Tabs } from "../ui/tabs.js";
import { BattleDialog } from "./battle_list.js";
import { Exports } from "./exports.js";
import { OperatorView } from "./operator_view.js";
import { BattleCounts, Foundations, OverTime, Ratings, WinRates } from "./views.js";

export const styled = addStyle(new URL("leaderboard.css", import.meta.url));

const LIVE_MS = 10_000;
const FILTERS = ["sources", "category", "language", "style", "from", "to", "examples"];
const SOURCES = [
  { value: "", label: "all" },
  { value: "human", label: "votes" },
  { value: "judge", label: "judges" },
  { value: "human,judge", label: "votes and judges" },
  { value: "import", label: "imported" },
];
const VIEWS = [
  { name: "ratings", label: "Ratings" },
  { name: "wins", label: "Win rates" },
  { name: "battles", label: "Battles" },
  { name: "time", label: "Over time" },
];

/** @param {import("../app/app.js").ScreenProps} props */
export function LeaderboardScreen({ route, attempt }) {
  const { query } = route;
  const view = query.get("view") ?? "ratings";
  const filters = new URLSearchParams([...query].filter(([name]) => FILTERS.includes(name))).toString();
  const board = useMemo(() => new Resource(() => get(`/leaderboard?${filters}`)), [filters]);
  const terms = useMemo(() => new Resource(() => get("/arena")), []);
  useLayoutEffect(() => board.follow(LIVE_MS), [board]);
  useLayoutEffect(() => void terms.load(), [terms]);
  useLayoutEffect(() => void (document.title = "Ratings · chaku"), []);
  /** The same place with some things changed; an empty value takes one out. @param {Record<string, string>} changes */
  const go = (changes) => {
    const next = new URLSearchParams(query);
    for (const [name, value] of Object.entries(changes)) value ? next.set(name, value) : next.delete(name);
    goTo(`/leaderboard${next.size ? `?${next}` : ""}`);
  };
  const pair = query.get("a") && query.get("b") ? { a: String(query.get("a")), b: String(query.get("b")) } : null;
  const open = (/** @type {string} */ a, /** @type {string} */ b) => go({ a, b });
  const tabs = (/** @type {any} */ isOperator) => (isOperator ? [...VIEWS, { name: "operator", label: "Operator" }] : VIEWS);
  return html`<main class="screen leaderboard">
    <h1>Ratings</h1>
    <${Shown}
      resource=${terms}
      draw=${(/** @type {any} */ data) => html`<${Tabs} label="Views" tabs=${tabs(data.is_operator)} chosen=${view} onChoose=${(/** @type {string} */ name) => go({ view: name === "ratings" ? "" : name })}>
        ${view === "operator"
          ? html`<${OperatorView} attempt=${attempt} />`
          : html`<${Shown} resource=${board} draw=${(/** @type {any} */ found) => html`<${Board} board=${found} view=${view} query=${query} onGo=${go} onOpen=${open} />`} />`}
      <//>`}
    />
    ${pair && html`<${BattleDialog} modelA=${pair.a} modelB=${pair.b} onClose=${() => go({ a: "", b: "" })} />`}
  </main>`;
}

/** @param {{board: any, view: string, query: URLSearchParams, onGo: (changes: Record<string, string>) => void, onOpen: (a: string, b: string) => void}} props */
function Board({ board, view, query, onGo, onOpen }) {
  const hasNone = !board.rows.length && !Object.keys(board.counts.source ?? {}).length;
  const draw = {
    ratings: () => html`<${Ratings} rows=${board.rows} />`,
    wins: () => html`<${WinRates} matrix=${board.matrix} onOpen=${onOpen} />`,
    battles: () => html`<${BattleCounts} board=${board} onOpen=${onOpen} />`,
    time: () => html`<${OverTime} months=${board.months} />`,
  }[view];
  return html`<${Filters} board=${board} query=${query} onGo=${onGo} />
    ${board.error && !hasNone && html`<p class="complaint">There are no ratings: ${board.error}</p>`}
    ${hasNone ? NONE : draw?.()}
    ${!hasNone && html`<${Exports} board=${board} /><${Foundations} board=${board} />`}`;
}

const NONE = html`<${Empty} title="No votes yet">Votes come from the <a href="/arena">arena</a>; verdicts of judges and imported votes count here too.<//>`;

/** @param {{board: any, query: URLSearchParams, onGo: (changes: Record<string, string>) => void}} props */
function Filters({ board, query, onGo }) {
  const options = (/** @type {string} */ name) => [
    { value: "", label: "all" },
    ...Object.entries(board.counts[name] ?? {}).map(([value, games]) => ({ value, label: `${value.replace("_", " ")} (${Number(games).toLocaleString("en")})` })),
  ];
  const chosen = (/** @type {string} */ name) => query.get(name) ?? "";
  const check = (/** @type {string} */ name, /** @type {string} */ label) =>
    html`<label><input type="checkbox" checked=${chosen(name) === "1"} onChange=${() => onGo({ [name]: chosen(name) === "1" ? "" : "1" })} /> ${label}</label>`;
  const date = (/** @type {string} */ name, /** @type {string} */ label) =>
    html`<label>${label} <input type="date" value=${chosen(name)} onChange=${(/** @type {any} */ event) => onGo({ [name]: event.target.value })} /></label>`;
  return html`<div class="row filters" role="group" aria-label="Filters">
    <${Select} label="Source" value=${chosen("sources")} options=${SOURCES} onChoose=${(/** @type {string} */ value) => onGo({ sources: value })} />
    <${Select} label="Category" value=${chosen("category")} options=${options("category")} onChoose=${(/** @type {string} */ value) => onGo({ category: value })} />
    <${Select} label="Language" value=${chosen("language")} options=${options("language")} onChoose=${(/** @type {string} */ value) => onGo({ language: value })} />
    ${date("from", "From")} ${date("to", "To")} ${check("style", "Style control")} ${board.has_examples && check("examples", "Include example votes")}
  </div>`;
}
