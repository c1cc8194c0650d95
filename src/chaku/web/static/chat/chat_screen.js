/** The chat: the list of chats, the bar over the one that is open, its panel and its settings. */

/** @import {Model} from "../data/types.js" */
import { chatInAddress, goTo, replaceAddress } from "../app/address.js";
import { commandOf } from "../app/shortcuts.js";
import { useChanges } from "../data/observable.js";
import { copyText } from "../ui/clipboard.js";
import { Boundary, html, useLayoutEffect, useMemo, useState } from "../ui/html.js";
import { IconButton } from "../ui/icons.js";
import { Broken } from "../ui/notices.js";
import { onDemand } from "../ui/on_demand.js";
import { ChatPanel } from "./chat_panel.js";
import { Conversation } from "./conversation.js";
import { applyDefaults } from "./defaults.js";
import { ModelPicker } from "./model_picker.js";
import { Sidebar } from "./sidebar.js";
import { textOf } from "./tree.js";

const SettingsDrawer = onDemand(async () => (await import("./settings_drawer.js")).SettingsDrawer);
const LAST_MODEL = "chaku.model";
const EXAMPLES = [
  "Explain how a transformer predicts the next token, with a small example.",
  "Write a Python function that merges overlapping intervals, and test it.",
  "Compare SQLite and PostgreSQL in a table.",
];

/** @param {import("../app/app.js").ScreenProps} props */
export function ChatScreen({ session, models, chats, events, route, say, complain, attempt, isCovered, onShortcuts, theme }) {
  const open = (/** @type {string | null} */ id) => {
    const opened = new Conversation(id, (name) => models.find(name)?.recommended);
    if (!id) applyDefaults(opened);
    return opened;
  };
  const [conversation, setConversation] = useState(() => open(chatInAddress()));
  const [isListOpen, setListOpen] = useState(false);
  const [hasSettings, setSettings] = useState(false);
  // After the first paint, so that whoever opens the settings by key types into them at once.
  useLayoutEffect(() => {
    const timer = setTimeout(SettingsDrawer.fetch);
    return () => clearTimeout(timer);
  }, []);
  useChanges(models);
  useChanges(events);
  useChanges(conversation);

  const goal = useMemo(() => {
    const id = route.query.get("msg");
    return id ? { id, words: route.query.get("find") ?? "" } : null;
  }, [route]);

  useLayoutEffect(() => {
    const id = chatInAddress();
    setConversation((now) => (now.id === id ? now : open(id)));
  }, [route]);

  useLayoutEffect(() => {
    conversation.onCreated = (id) => replaceAddress(`/chat/${id}`);
    if (conversation.id) conversation.load();
    else if (!matchMedia("(pointer: coarse)").matches) focusComposer();
    const end = conversation.listen(events);
    return () => (end(), conversation.close());
  }, [conversation]);

  useLayoutEffect(
    () =>
      events.on({
        chat_deleted: ({ id }) => {
          if (id !== chatInAddress()) return;
          goTo("/");
          say("This chat was deleted");
        },
      }),
    [events],
  );

  // A chat without a model takes the one that was used last, or the first one that is served.
  useLayoutEffect(() => {
    if (!conversation.isLoaded || !models.all.length) return;
    const { model } = conversation;
    if (conversation.id ? model !== null : model && models.find(model)) return;
    const last = localStorage.getItem(LAST_MODEL);
    const start = models.find(last) ?? models.ready[0] ?? models.all[0];
    conversation.model = start.id; // the server hears of it with the first message
    conversation.changed();
  }, [conversation, conversation.isLoaded, models.data]);

  const newChat = () => {
    if (chatInAddress()) goTo("/");
    else setConversation(open(null));
    setListOpen(false);
  };
  useLayoutEffect(() => {
    /** @type {Record<string, () => void>} */
    const commands = {
      new: newChat,
      search: () => {
        setListOpen(true);
        focusSearch();
        queueMicrotask(focusSearch); // on a narrow screen the list has to be drawn first
      },
      model: () => /** @type {HTMLElement | null} */ (document.querySelector(".model-picker .menu-button"))?.click(),
      settings: () => setSettings(true),
      composer: focusComposer,
      copy: async () => {
        const last = conversation.path.findLast((message) => message.role === "assistant");
        if (last) say((await copyText(textOf(last.content))) ? "Answer copied" : "This browser does not let the page copy");
      },
    };
    const onKey = (/** @type {KeyboardEvent} */ event) => {
      const command = isCovered || hasSettings ? null : commandOf(event);
      if (!command || !commands[command]) return;
      event.preventDefault();
      commands[command]();
    };
    addEventListener("keydown", onKey);
    return () => removeEventListener("keydown", onKey);
  }, [conversation, hasSettings, isCovered]);

  const choose = (/** @type {string} */ id) => {
    localStorage.setItem(LAST_MODEL, id);
    attempt(conversation.update({ model: id, settings: conversation.settings }));
  };
  return html`<div class="chat-screen">
    <a class="skip" href="#message" onClick=${(/** @type {Event} */ e) => (e.preventDefault(), focusComposer())}>Go to the message field</a>
    <${Sidebar}
      session=${session}
      chats=${chats}
      chosen=${conversation.id}
      isOpen=${isListOpen}
      onClose=${() => setListOpen(false)}
      say=${say}
      attempt=${attempt}
      onShortcuts=${onShortcuts}
      theme=${theme}
    />
    ${isListOpen && html`<div class="shade" onClick=${() => setListOpen(false)}></div>`}
    <main class="main">
      <${Bar}
        conversation=${conversation}
        models=${models.all}
        onList=${() => setListOpen(true)}
        onChoose=${choose}
        onSettings=${() => setSettings(true)}
        onNew=${newChat}
      />
      ${!events.isUp && conversation.isOnline && html`<p class="offline" role="alert">The server does not answer. Trying again…</p>`}
      <${Boundary} key=${conversation} fallback=${Broken}>
        <${Started} conversation=${conversation} models=${models.all} onComplain=${complain} onSay=${say} goal=${goal} />
      <//>
    </main>
    ${hasSettings &&
    html`<${Boundary} fallback=${Broken}>
      <${SettingsDrawer}
        conversation=${conversation}
        needsKey=${session.asksForKeys}
        onClose=${() => setSettings(false)}
        attempt=${attempt}
      />
    <//>`}
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
  const numSet = Object.keys(conversation.settings).length + (conversation.system && conversation.system !== conversation.defaults.system ? 1 : 0);
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

/**
 * The panel, with what teaches while the chat is empty.
 * @param {{conversation: Conversation, models: Model[], onComplain: (text: string) => void, onSay: (text: string, action?: string, onAction?: () => void) => void, goal: import("./messages.js").Goal | null}} props
 */
function Started({ conversation, models, onComplain, onSay, goal }) {
  const [start, setStart] = useState(/** @type {{text: string} | null} */ (null));
  return html`<${ChatPanel} conversation=${conversation} models=${models} onComplain=${onComplain} onSay=${onSay} goal=${goal} start=${start}>
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

function focusComposer() {
  /** @type {HTMLElement | null} */ (document.querySelector(".composer textarea"))?.focus();
}

function focusSearch() {
  /** @type {HTMLElement | null} */ (document.querySelector(".sidebar input[type=search]"))?.focus();
}
