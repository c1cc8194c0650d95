/** The page's frame: the list of chats, the bar over the chat, and what opens over both. */

/** @import {Model} from "../data/types.js" */
import { chatInAddress, goTo, onAddressChange, replaceAddress } from "./address.js";
import { ChatPanel } from "../chat/chat_panel.js";
import { copyText } from "../ui/clipboard.js";
import { Conversation, problemOf } from "../chat/conversation.js";
import { Boundary, html, useLayoutEffect, useMemo, useReducer, useState } from "../ui/html.js";
import { IconButton } from "../ui/icons.js";
import { Library } from "../data/library.js";
import { Login } from "./login.js";
import { ModelPicker } from "../chat/model_picker.js";
import { ErrorCard, Notices, Toast } from "../ui/notices.js";
import { useChanges } from "../data/observable.js";
import { SettingsDrawer } from "../chat/settings_drawer.js";
import { Shortcuts, commandOf } from "./shortcuts.js";
import { Sidebar } from "../chat/sidebar.js";
import { nextTheme, themeName } from "./theme.js";
import { textOf } from "../chat/tree.js";

const LAST_MODEL = "chaku.model";
const EXAMPLES = [
  "Explain how a transformer predicts the next token, with a small example.",
  "Write a Python function that merges overlapping intervals, and test it.",
  "Compare SQLite and PostgreSQL in a table.",
];

/** @param {{library: Library}} props */
export function App({ library }) {
  useChanges(library);
  const notices = useMemo(() => new Notices(), []);
  const [conversation, setConversation] = useState(() => new Conversation(chatInAddress()));
  const [isListOpen, setListOpen] = useState(false);
  const [over, setOver] = useState(/** @type {"settings" | "shortcuts" | null} */ (null));
  useChanges(conversation);
  const [, redraw] = useReducer((/** @type {number} */ n) => n + 1, 0);

  const say = (/** @type {string} */ text, /** @type {string} */ action = "", onAction = () => {}) =>
    notices.show({ text, action, onAction });
  const attempt = async (/** @type {Promise<any>} */ work) => {
    try {
      await work;
    } catch (error) {
      const { message, fix } = problemOf(error);
      notices.show({ text: [message, fix].filter(Boolean).join(" "), isError: true });
    }
  };

  useLayoutEffect(() => {
    const onAddress = () =>
      setConversation((now) => (now.id !== null && now.id === chatInAddress() ? now : new Conversation(chatInAddress())));
    return onAddressChange(onAddress);
  }, []);

  const isIn = library.isLoaded;
  useLayoutEffect(() => {
    if (!isIn) return;
    conversation.onCreated = (id) => replaceAddress(`/chat/${id}`);
    if (conversation.id) conversation.load();
    else if (!matchMedia("(pointer: coarse)").matches) focusComposer();
    const end = library.onChat((id, message, chat) => {
      if (conversation.id && (id === conversation.id || id === "*")) conversation.heard(message, chat);
    });
    return () => (end(), conversation.close());
  }, [conversation, isIn]);

  // A chat without a model takes the one that was used last, or the first one that is served.
  useLayoutEffect(() => {
    if (!conversation.isLoaded || !library.models.length) return;
    const { model } = conversation;
    if (conversation.id ? model !== null : model && library.model(model)) return;
    const last = localStorage.getItem(LAST_MODEL);
    const start = library.model(last ?? "") ?? library.models.find((m) => m.state === "ready") ?? library.models[0];
    conversation.model = start.id; // the server hears of it with the first message
    conversation.changed();
  }, [conversation, conversation.isLoaded, library.models]);

  const newChat = () => {
    if (chatInAddress()) goTo("/");
    else setConversation(new Conversation(null));
    setListOpen(false);
  };
  useLayoutEffect(() => {
    const commands = {
      new: newChat,
      search: () => {
        setListOpen(true);
        focus("search");
        queueMicrotask(() => focus("search")); // on a narrow screen the list has to be drawn first
      },
      model: () => /** @type {HTMLElement | null} */ (document.querySelector(".model-picker .menu-button"))?.click(),
      settings: () => setOver("settings"),
      composer: focusComposer,
      shortcuts: () => setOver("shortcuts"),
      copy: async () => {
        const last = conversation.path.findLast((message) => message.role === "assistant");
        if (last) say((await copyText(textOf(last.content))) ? "Answer copied" : "This browser does not let the page copy");
      },
    };
    const onKey = (/** @type {KeyboardEvent} */ event) => {
      const command = library.isLoaded && !over ? commandOf(event) : null;
      if (!command) return;
      event.preventDefault();
      commands[command]();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [conversation, over]);

  if (library.needsLogin) return html`<${Login} library=${library} />`;
  const theme = { name: themeName(), next: () => (nextTheme(), redraw(0)) };
  const choose = (/** @type {string} */ id) => {
    localStorage.setItem(LAST_MODEL, id);
    attempt(conversation.update({ model: id }));
  };
  return html`<div class="frame">
    <a class="skip" href="#composer" onClick=${(/** @type {Event} */ e) => (e.preventDefault(), focusComposer())}>Go to the message field</a>
    <${Sidebar}
      library=${library}
      chosen=${conversation.id}
      isOpen=${isListOpen}
      onClose=${() => setListOpen(false)}
      say=${say}
      attempt=${attempt}
      onShortcuts=${() => setOver("shortcuts")}
      theme=${theme}
    />
    ${isListOpen && html`<div class="shade" onClick=${() => setListOpen(false)}></div>`}
    <main class="main">
      <${Bar}
        conversation=${conversation}
        models=${library.models}
        onList=${() => setListOpen(true)}
        onChoose=${choose}
        onSettings=${() => setOver("settings")}
        onNew=${newChat}
      />
      ${!library.isOnline && conversation.isOnline && html`<p class="offline" role="alert">The server does not answer. Trying again…</p>`}
      <${Boundary} key=${conversation} fallback=${broken}>
        <${Started} conversation=${conversation} models=${library.models} notices=${notices} />
      <//>
    </main>
    ${over === "settings" &&
    html`<${Boundary} fallback=${broken}><${SettingsDrawer}
      conversation=${conversation}
      needsKey=${library.session?.login_required ?? false}
      onClose=${() => setOver(null)}
      attempt=${attempt}
    /><//>`}
    ${over === "shortcuts" && html`<${Shortcuts} onClose=${() => setOver(null)} />`}
    <${Toast} notices=${notices} />
  </div>`;
}

/**
 * @param {object} props
 * @param {Conversation} props.conversation
 * @param {Model[]} props.models
 * @param {() => void} props.onList
 * @param {(id: string) => void} props.onChoose
 * @param {() => void} props.onSettings
 * @param {() => void} props.onNew
 */
function Bar({ conversation, models, onList, onChoose, onSettings, onNew }) {
  useChanges(conversation);
  const numSet = Object.keys(conversation.settings).length + (conversation.system ? 1 : 0);
  useLayoutEffect(() => {
    document.title = conversation.title ? `${conversation.title} · chaku` : "chaku";
  }, [conversation.title]);
  return html`<header class="bar">
    <${IconButton} icon="menu" label="Chats" class="narrow-only" onClick=${onList} />
    <${ModelPicker} models=${models} chosen=${conversation.model} onChoose=${onChoose} />
    <h1 class="chat-title" dir="auto">${conversation.title}</h1>
    <${IconButton} icon="plus" label="New chat" class="narrow-only" onClick=${onNew} />
    <${IconButton}
      icon="gear"
      label=${numSet ? `Chat settings, ${numSet} set` : "Chat settings"}
      class=${numSet ? "marked" : ""}
      onClick=${onSettings}
    />
  </header>`;
}

/** The panel, with what teaches while the chat is empty. @param {{conversation: Conversation, models: Model[], notices: Notices}} props */
function Started({ conversation, models, notices }) {
  const [start, setStart] = useState(/** @type {{text: string} | null} */ (null));
  const onComplain = (/** @type {string} */ text) => notices.show({ text, isError: true });
  return html`<${ChatPanel} conversation=${conversation} models=${models} onComplain=${onComplain} start=${start}>
    <div class="empty">
      ${models.length
        ? html`<h2>What shall we talk about?</h2>
            <p>Programs reach the same models at <code>${location.origin}/v1</code></p>
            <div class="examples">
              ${EXAMPLES.map((text) => html`<button type="button" onClick=${() => setStart({ text })}>${text}</button>`)}
            </div>`
        : html`<h2>No model is served yet</h2>
            <p>Stop the server and start it with one, for example the built-in 135M model:</p>
            <pre><code>chaku serve smollm2-135m</code></pre>`}
    </div>
  <//>`;
}

/** What stands where a screen broke. @param {unknown} error @param {() => void} retry */
function broken(error, retry) {
  return html`<div class="broken"><${ErrorCard} title="This part of the page can't be shown" problem=${problemOf(error)} onRetry=${retry} /></div>`;
}

/** What is shown when the page can't even begin. @param {{problem: import("../data/types.js").Problem}} props */
export function NotStarted({ problem }) {
  return html`<main class="login">
    <${ErrorCard} title="The page can't start" problem=${problem} onRetry=${() => location.reload()} />
  </main>`;
}

function focusComposer() {
  /** @type {HTMLElement | null} */ (document.querySelector(".composer textarea"))?.focus();
}

/** @param {string} id */
function focus(id) {
  document.getElementById(id)?.focus();
}
