/** Compare: two to four chats side by side under one composer. */

/** @import {Models} from "../data/models.js" */
/** @import {Part} from "../data/types.js" */
import { replaceAddress } from "../app/address.js";
import { commandOf } from "../app/shortcuts.js";
import { useChanges } from "../data/observable.js";
import { blockedBy } from "../chat/chat_panel.js";
import { Composer } from "../chat/composer.js";
import { takesImages } from "../chat/records.js";
import { html, useLayoutEffect, useReducer, useRef, useState } from "../ui/html.js";
import { onDemand } from "../ui/on_demand.js";
import { addStyle } from "../ui/style.js";
import { Tabs } from "../ui/tabs.js";
import { useMedia } from "../ui/media.js";
import { Column } from "./column.js";
import { ColumnView } from "./column_view.js";
import { linkScrolling } from "./linked_scrolling.js";
import { CAN_MARK, markDifferences } from "./marked_words.js";
import { VoteRow } from "./vote_row.js";

const SettingsDrawer = onDemand(async () => (await import("../chat/settings_drawer.js")).SettingsDrawer);
const FEWEST = 2;
const MOST = 4;
const NARROW = "(max-width: 720px)";

export const styled = addStyle(new URL("compare.css", import.meta.url));

/** The columns that the address names, by chats (`?chats=`) or by models (`?models=`). @param {URLSearchParams} query @param {Models} models */
function columnsOf(query, models) {
  const named = (/** @type {string} */ name) => (query.get(name) ?? "").split(",").filter(Boolean).slice(0, MOST);
  const recommended = (/** @type {string} */ name) => models.find(name)?.recommended;
  const columns = named("chats").map((id) => new Column(id, null, recommended));
  for (const model of named("models").slice(columns.length)) columns.push(new Column(null, model, recommended));
  const ready = models.ready.map((model) => model.id);
  while (columns.length < FEWEST) columns.push(new Column(null, ready[columns.length % Math.max(1, ready.length)] ?? null, recommended));
  return columns;
}

/** @param {import("../app/app.js").ScreenProps} props */
export function CompareScreen({ session, models, events, route, say, complain, attempt, isCovered }) {
  useChanges(models);
  const [columns, setColumns] = useState(() => columnsOf(route.query, models));
  const [isLinked, setLinked] = useState(true);
  const [isMarked, setMarked] = useState(false);
  const [isBlind, setBlind] = useState(false);
  const [differences, setDifferences] = useState("");
  const [opened, setOpened] = useState(/** @type {Column | null} */ (null));
  const [shown, setShown] = useState(columns[0].key);
  const [, redraw] = useReducer((/** @type {number} */ n) => n + 1, 0);
  const root = useRef(/** @type {HTMLElement | null} */ (null));
  const isNarrow = useMedia(NARROW);

  useLayoutEffect(() => void (document.title = "Compare · chaku"), []);
  useLayoutEffect(() => {
    const name = () => {
      const ids = columns.map(({ conversation }) => conversation.id);
      if (ids.every(Boolean)) replaceAddress(`/compare?chats=${ids.map((id) => encodeURIComponent(String(id))).join(",")}`);
    };
    for (const { conversation } of columns) {
      conversation.onCreated = name;
      if (conversation.id && !conversation.isLoaded) conversation.load();
    }
    name();
    const ends = columns.flatMap((column) => [column.subscribe(() => redraw(0)), column.conversation.subscribe(() => redraw(0))]);
    ends.push(...columns.map(({ conversation }) => conversation.listen(events)));
    return () => ends.forEach((end) => end());
  }, [columns]);
  const all = useRef(columns);
  all.current = columns;
  useLayoutEffect(() => () => all.current.forEach(({ conversation }) => conversation.close()), []);
  useLayoutEffect(() => (isLinked && root.current ? linkScrolling(root.current, ".messages") : undefined), [isLinked, isNarrow]);
  useLayoutEffect(() => {
    setDifferences("");
    return isMarked && !isNarrow && root.current ? markDifferences(root.current, setDifferences) : undefined;
  }, [isMarked, isNarrow, columns]);
  useLayoutEffect(() => {
    const onKey = (/** @type {KeyboardEvent} */ event) => {
      if (isCovered || opened || commandOf(event) !== "composer") return;
      event.preventDefault();
      /** @type {HTMLElement | null} */ (document.querySelector(".composer textarea"))?.focus();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [isCovered, opened]);

  const add = () => {
    const used = new Set(columns.map(({ conversation }) => conversation.model));
    const model = models.ready.find(({ id }) => !used.has(id)) ?? models.all[0];
    setColumns([...columns, new Column(null, model?.id ?? null, (name) => models.find(name)?.recommended)]);
  };
  const close = (/** @type {Column} */ column) => {
    column.conversation.close();
    const rest = columns.filter((other) => other !== column);
    setColumns(rest);
    if (shown === column.key) setShown(rest[0].key);
  };
  const blind = () => {
    setBlind(!isBlind);
    if (!isBlind) setColumns(shuffled(columns));
  };
  const addressed = columns.filter((column) => column.isAddressed);
  const blocked = addressed.map(({ conversation }) => blockedBy(conversation, models.find(conversation.model))).find(Boolean);
  const send = async (/** @type {string | Part[]} */ content) => (await Promise.all(addressed.map((column) => column.send(content)))).some(Boolean);
  const stop = () => columns.forEach((column) => void column.stop());
  const limits = addressed.map(({ conversation }) => models.find(conversation.model)?.context_tokens).filter((n) => n != null);
  const longest = [...addressed].sort((a, b) => b.conversation.path.length - a.conversation.path.length)[0]?.conversation;
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Escape" && !event.defaultPrevented) stop();
  };
  const view = (/** @type {Column} */ column) => html`<${ColumnView}
    key=${column.key}
    column=${column}
    place=${columns.indexOf(column) + 1}
    models=${models.all}
    isBlind=${isBlind}
    onClose=${columns.length > FEWEST ? () => close(column) : null}
    onSettings=${() => setOpened(column)}
    onAddressed=${() => ((column.isAddressed = !column.isAddressed), redraw(0))}
    say=${say}
    attempt=${attempt}
  />`;
  const tabs = columns.map((column, i) => ({ name: column.key, label: isBlind ? `Model ${i + 1}` : `${i + 1} ${column.conversation.model ?? ""}` }));
  return html`<main class="compare-screen" onKeyDown=${onKey}>
    <header class="bar compare-bar">
      <h1>Compare</h1>
      ${!isNarrow && html`<${Switch} label="Scroll together" isOn=${isLinked} onTurn=${() => setLinked(!isLinked)} />`}
      ${!isNarrow && CAN_MARK && html`<${Switch} label="Mark differences" isOn=${isMarked} onTurn=${() => setMarked(!isMarked)} />`}
      <${Switch} label="Hide names" isOn=${isBlind} onTurn=${blind} />
      <button type="button" class="quiet" disabled=${columns.length >= MOST} onClick=${add}>Add a column</button>
    </header>
    ${differences && html`<p class="hint differences" role="status">${differences}</p>`}
    <div class=${`compare-columns columns-${columns.length}`} ref=${root}>
      ${isNarrow
        ? html`<${Tabs} label="Columns" tabs=${tabs} chosen=${shown} onChoose=${setShown}>${columns.filter(({ key }) => key === shown).map(view)}<//>`
        : columns.map(view)}
    </div>
    <div class="composer-area">
      ${columns.some(({ conversation }) => !conversation.isOnline) && html`<p class="offline" role="alert">Connection lost. Trying again; the server continues the answers.</p>`}
      <${VoteRow} columns=${columns} isBlind=${isBlind} attempt=${attempt} />
      <${Composer}
        draftKey="compare"
        isRunning=${columns.some(({ conversation }) => conversation.running)}
        blocked=${addressed.length ? (blocked && isBlind ? "A model is not ready" : (blocked ?? "")) : "Choose a column to write to"}
        allowImages=${addressed.length > 0 && addressed.every(({ conversation }) => takesImages(models.find(conversation.model)))}
        context=${{ path: longest?.path ?? [], system: longest?.inForce.system ?? "", limit: limits.length ? Math.min(...limits) : null }}
        onSend=${send}
        onStop=${stop}
        onEditLast=${() => {}}
        onComplain=${complain}
      />
    </div>
    ${opened &&
    html`<${SettingsDrawer} conversation=${opened.conversation} needsKey=${session.asksForKeys} onClose=${() => setOpened(null)} attempt=${attempt} />`}
  </main>`;
}

/** @param {{label: string, isOn: boolean, onTurn: () => void}} props */
function Switch({ label, isOn, onTurn }) {
  return html`<label class="switch"><input type="checkbox" role="switch" checked=${isOn} onChange=${onTurn} /> ${label}</label>`;
}

/** @template T @param {T[]} list @returns {T[]} */
function shuffled(list) {
  const all = [...list];
  for (let i = all.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [all[i], all[j]] = [all[j], all[i]];
  }
  return all;
}
