/** The chats that were held: by day, to be searched, named, pinned, taken away and brought in. */

/** @import {Chats} from "../data/chats.js" */
/** @import {Session} from "../data/session.js" */
/** @import {Chat} from "../data/types.js" */
import { goTo } from "../app/address.js";
import { getText, post } from "../data/api.js";
import { byDay, count } from "../ui/format.js";
import { html, useLayoutEffect, useRef, useState } from "../ui/html.js";
import { Icon, IconButton } from "../ui/icons.js";
import { Menu } from "../ui/menu.js";
import { useChanges } from "../data/observable.js";
import { save } from "../ui/save.js";

const SEARCH_DELAY_MS = 150;

/**
 * @param {object} props
 * @param {Session} props.session
 * @param {Chats} props.chats
 * @param {string | null} props.chosen
 * @param {boolean} props.isOpen  on a narrow screen
 * @param {() => void} props.onClose
 * @param {(text: string, action?: string, onAction?: () => void) => void} props.say
 * @param {(work: Promise<any>) => Promise<void>} props.attempt
 * @param {() => void} props.onShortcuts
 * @param {{name: string, next: () => void}} props.theme
 */
export function Sidebar({ session, chats, chosen, isOpen, onClose, say, attempt, onShortcuts, theme }) {
  useChanges(chats);
  const [renaming, setRenaming] = useState("");
  const [focusAt, setFocusAt] = useState(-1); // the row that a deleted chat has left
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  const refocus = useRef(""); // the chat whose name was just given
  const timer = useRef(0);
  const chooser = useRef(/** @type {HTMLInputElement | null} */ (null));
  useLayoutEffect(() => {
    if (focusAt < 0) return;
    const links = linksOf();
    (links[focusAt] ?? links.at(-1) ?? /** @type {HTMLElement} */ (list.current?.parentElement?.querySelector(".new-chat"))).focus();
    setFocusAt(-1);
  }, [focusAt]);
  useLayoutEffect(() => {
    if (renaming || !refocus.current) return;
    /** @type {HTMLElement | null} */ (document.querySelector(`.chat-list a[href^="/chat/${refocus.current}"]`))?.focus();
    refocus.current = "";
  }, [renaming]);
  const search = (/** @type {string} */ query) => {
    clearTimeout(timer.current);
    timer.current = setTimeout(() => attempt(chats.search(query)), SEARCH_DELAY_MS);
  };
  const linksOf = () => /** @type {HTMLElement[]} */ ([...(list.current?.querySelectorAll("li > a") ?? [])]);
  const onSearchKey = (/** @type {KeyboardEvent} */ event) => {
    const [first] = linksOf();
    if (event.isComposing || !first || (event.key !== "ArrowDown" && event.key !== "Enter")) return;
    event.preventDefault();
    if (event.key === "ArrowDown") first.focus();
    else if (chats.query) first.click();
  };
  const onListKey = (/** @type {KeyboardEvent} */ event) => {
    const links = linksOf();
    const at = links.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    if (at < 0 || (event.key !== "ArrowDown" && event.key !== "ArrowUp")) return;
    event.preventDefault();
    const next = links[at + (event.key === "ArrowDown" ? 1 : -1)];
    if (next) next.focus();
    else if (event.key === "ArrowUp") /** @type {HTMLElement | null | undefined} */ (list.current?.parentElement?.querySelector("input[type=search]"))?.focus();
  };
  const drop = async (/** @type {Chat} */ chat) => {
    const rows = [...(list.current?.querySelectorAll("li") ?? [])];
    const at = rows.findIndex((row) => row.contains(document.activeElement));
    if (chat.id === chosen) goTo("/"); // first: other tabs that show it say that it is gone
    await attempt(chats.delete(chat));
    if (at >= 0) setFocusAt(at); // the one that takes its place
    say(`“${chat.title}” deleted`, "Undo", () => attempt(chats.restore(chat)));
  };
  const bringIn = async (/** @type {File} */ file) => {
    const { imported, skipped, repaired } = await post("/import", file);
    await chats.refresh();
    const left = skipped.length ? `; ${count(skipped.length, "record")} left out: ${skipped[0].reason} (number ${skipped[0].line})` : "";
    const reasons = Object.entries(repaired).map(([reason, times]) => `; ${times} × ${reason}`);
    say(`${count(imported, "chat")} imported${left}${reasons.slice(0, 3).join("")}`);
  };
  const toRead = async (/** @type {Chat} */ chat, /** @type {"md" | "html"} */ format) => {
    const { exported } = await import("./export_chat.js");
    save(await exported(chat.id, format), `${fileName(chat.title)}.${format}`);
  };
  const groups = byDay(chats.rows, new Date());
  const user = session.facts?.user;
  const mine = [
    { label: "Export all chats", onChoose: () => attempt(download("/export?all=1", "chats.jsonl")) },
    { label: "Import chats…", onChoose: () => chooser.current?.click() },
    { label: `Theme: ${theme.name}`, onChoose: theme.next },
    { label: "Help and keyboard shortcuts", onChoose: onShortcuts },
    { label: "API reference", onChoose: () => window.open("/docs", "_blank", "noopener") },
    ...(user?.kind === "key" ? [{ label: "Log out", onChoose: () => attempt(session.logout()) }] : []),
  ];
  return html`<nav class=${`sidebar${isOpen ? " open" : ""}`} aria-label="Chats">
    <div class="brand">
      <strong>chaku</strong>
      <${IconButton} icon="close" label="Close the list" class="narrow-only" onClick=${onClose} />
    </div>
    <a class="new-chat" href="/" onClick=${onClose}><${Icon} name="plus" />New chat</a>
    <div class="search">
      <${Icon} name="search" />
      <input
        type="search"
        placeholder="Search"
        aria-label="Search chats"
        aria-keyshortcuts="Control+K"
        onInput=${(/** @type {any} */ event) => search(event.target.value)}
        onKeyDown=${onSearchKey}
      />
      <kbd>Ctrl K</kbd>
    </div>
    <div class="chat-list" ref=${list} onKeyDown=${onListKey}>
      ${groups.map(
        (group) => html`<section key=${group.name}>
          <h2>${group.name}</h2>
          <ul>
            ${group.chats.map((chat) =>
              renaming === chat.id
                ? html`<li key=${chat.id}>
                    <${Rename}
                      title=${chat.title}
                      onDone=${(/** @type {string | null} */ title, /** @type {boolean} */ isByKey) => {
                        setRenaming("");
                        if (isByKey) refocus.current = chat.id;
                        if (title && title !== chat.title) attempt(chats.update(chat.id, { title }));
                      }}
                    />
                  </li>`
                : html`<li key=${chat.id} class=${chat.id === chosen ? "chosen" : ""}>
                    <a href=${placeOf(chat, chats.query)} aria-current=${chat.id === chosen ? "page" : undefined} title=${chat.title || "New chat"} onClick=${onClose}>
                      ${chat.pinned && html`<${Icon} name="pin" />`}<span dir="auto">${marked(chat.title || "New chat", chats.query)}</span>
                      ${chat.snippet && html`<small dir="auto">${marked(chat.snippet, chats.query)}</small>`}
                    </a>
                    <${Menu}
                      label=${`What to do with ${chat.title}`}
                      class="slim"
                      align="end"
                      button=${html`<${Icon} name="more" />`}
                      choices=${[
                        { label: "Rename", onChoose: () => setRenaming(chat.id) },
                        { label: chat.pinned ? "Unpin" : "Pin", onChoose: () => attempt(chats.update(chat.id, { pinned: !chat.pinned })) },
                        { label: "Export as Markdown", onChoose: () => attempt(toRead(chat, "md")) },
                        { label: "Export as HTML", onChoose: () => attempt(toRead(chat, "html")) },
                        { label: "Export all branches (JSONL)", onChoose: () => attempt(download(`/chats/${chat.id}/export?all=1`, `${fileName(chat.title)}.jsonl`)) },
                        { label: "Delete", onChoose: () => drop(chat) },
                      ]}
                    />
                  </li>`,
            )}
          </ul>
        </section>`,
      )}
      ${chats.isEmpty && html`<p class="hint">${chats.query ? "Nothing found." : "Your chats will be listed here."}</p>`}
      ${chats.hasMore && html`<button type="button" class="quiet" onClick=${() => attempt(chats.more())}>Older chats</button>`}
    </div>
    <div class="me">
      <input
        ref=${chooser}
        type="file"
        hidden
        accept=".json,.jsonl,.ndjson,.txt,application/json,application/jsonl"
        aria-label="File of chats"
        onChange=${(/** @type {any} */ event) => (attempt(bringIn(event.target.files[0])), (event.target.value = ""))}
      />
      <span title=${`chaku ${session.facts?.version ?? ""}`}>${user?.name ?? ""}</span>
      <${Menu} label="More" class="slim up" align="end" button=${html`<${Icon} name="more" />`} choices=${mine} />
    </div>
  </nav>`;
}

/** Where a chat is read: at the message that a search found, if it found one. @param {Chat} chat @param {string} query */
function placeOf(chat, query) {
  const at = query && chat.message_id ? `?${new URLSearchParams({ msg: chat.message_id, find: query.trim() })}` : "";
  return `/chat/${chat.id}${at}`;
}

/** A text in which what was searched for is marked. @param {string} text @param {string} query */
function marked(text, query) {
  const at = query.trim() ? text.toLowerCase().indexOf(query.trim().toLowerCase()) : -1;
  const end = at + query.trim().length;
  return at < 0 ? text : html`${text.slice(0, at)}<mark>${text.slice(at, end)}</mark>${text.slice(end)}`;
}

/** @param {{title: string, onDone: (title: string | null, isByKey: boolean) => void}} props */
function Rename({ title, onDone }) {
  const ref = useRef(/** @type {HTMLInputElement | null} */ (null));
  const isDone = useRef(false);
  useLayoutEffect(() => {
    const field = /** @type {HTMLInputElement} */ (ref.current);
    field.focus();
    field.select();
  }, []);
  /** Once: a field that is taken away while it has the focus loses it, and says so. @param {string | null} text */
  const done = (text, isByKey = false) => {
    if (isDone.current) return;
    isDone.current = true;
    onDone(text, isByKey);
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.isComposing) return;
    if (event.key === "Enter") done(/** @type {HTMLInputElement} */ (ref.current).value.trim(), true);
    if (event.key === "Escape") (event.stopPropagation(), done(null, true));
  };
  return html`<input
    ref=${ref}
    class="rename"
    dir="auto"
    aria-label="New title"
    defaultValue=${title}
    onKeyDown=${onKey}
    onBlur=${(/** @type {any} */ event) => done(event.target.value.trim())}
  />`;
}

/** @param {string} title */
function fileName(title) {
  return title.replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 60) || "chat";
}

/** Save what the server answers as a file. @param {string} path @param {string} name */
async function download(path, name) {
  save(new Blob([await getText(path)], { type: "application/jsonl" }), name);
}
