/** One message: what was said, and what can be done with it. */

/** @import {Message, Model} from "../data/types.js" */
/** @import {Conversation} from "./conversation.js" */
import { copyText } from "../ui/clipboard.js";
import { answerFacts, withVisibleControls } from "../ui/format.js";
import { html, useLayoutEffect, useRef, useState } from "../ui/html.js";
import { Icon, IconButton } from "../ui/icons.js";
import { MarkdownView } from "../markdown/markdown_view.js";
import { Menu } from "../ui/menu.js";
import { ErrorCard } from "../ui/notices.js";
import { imagesOf, siblingsOf, textOf } from "./tree.js";

const LONG_TEXT = 3_000;

/**
 * @typedef {object} MessageProps
 * @property {Message} message
 * @property {Conversation} conversation
 * @property {Model[]} models
 * @property {boolean} isLast
 * @property {(work: () => Promise<void>) => void} attempt  do something, and say so when it fails
 * @property {() => void} onDrawn
 */

/** @param {MessageProps} props */
export function MessageView(props) {
  const isUser = props.message.role === "user";
  return html`<article class=${`message ${props.message.role}`} id=${`message-${props.message.id}`} tabindex="-1">
    <h3 class="visually-hidden">${isUser ? "You" : `Answer${props.message.model ? ` of ${props.message.model}` : ""}`}</h3>
    <${isUser ? UserMessage : Answer} ...${props} />
  </article>`;
}

/** @param {MessageProps} props */
function UserMessage({ message, conversation, attempt }) {
  const [draft, setDraft] = useState(/** @type {string | null} */ (null));
  const [isWhole, setWhole] = useState(false);
  const text = textOf(message.content);
  const images = imagesOf(message.content);
  const isLong = text.length > LONG_TEXT && !isWhole;
  if (draft !== null) {
    const save = () => {
      const content = images.length
        ? [/** @type {const} */ ({ type: "text", text: draft }), ...images.map((url) => /** @type {const} */ ({ type: "image_url", image_url: { url } }))]
        : draft;
      setDraft(null);
      attempt(() => conversation.send(content, message.parent_id ?? null));
    };
    return html`<${Editor} text=${draft} onText=${setDraft} onSave=${save} onCancel=${() => setDraft(null)} />`;
  }
  return html`
    ${images.length > 0 &&
    html`<div class="images">${images.map((url) => html`<${SentImage} url=${url} />`)}</div>`}
    ${text &&
    html`<div class="said" dir="auto">
      ${withVisibleControls(isLong ? text.slice(0, LONG_TEXT) : text)}
      ${isLong && html`… <button type="button" class="quiet" onClick=${() => setWhole(true)}>Show all</button>`}
    </div>`}
    <div class="actions">
      <${Siblings} message=${message} conversation=${conversation} attempt=${attempt} />
      <${CopyButton} text=${text} />
      <${IconButton} icon="edit" label="Edit" class="edit" disabled=${Boolean(conversation.running)} onClick=${() => setDraft(text)} />
    </div>
  `;
}

/** A picture that was sent. One that lies elsewhere is named, not loaded. @param {{url: string}} props */
function SentImage({ url }) {
  if (/^data:image\/(png|jpeg|gif|webp);base64,/i.test(url)) return html`<img src=${url} alt="Sent with the message" />`;
  return html`<span class="image-chip">${withVisibleControls(url.slice(0, 80))}</span>`;
}

/** @param {{text: string, onText: (text: string) => void, onSave: () => void, onCancel: () => void}} props */
function Editor({ text, onText, onSave, onCancel }) {
  const ref = useRef(/** @type {HTMLTextAreaElement | null} */ (null));
  useLayoutEffect(() => {
    const field = /** @type {HTMLTextAreaElement} */ (ref.current);
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
    const editor = /** @type {HTMLElement} */ (field.parentElement);
    const next = /** @type {HTMLElement | null | undefined} */ (field.closest(".chat-panel")?.querySelector(".composer textarea"));
    return () => editor.contains(document.activeElement) && next?.focus();
  }, []);
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.isComposing) return;
    if (event.key === "Escape") (event.preventDefault(), event.stopPropagation(), onCancel());
    if (event.key === "Enter" && !event.shiftKey) (event.preventDefault(), text.trim() && onSave());
  };
  return html`<div class="editor">
    <textarea
      ref=${ref}
      dir="auto"
      aria-label="Edit the message"
      rows=${Math.min(12, text.split("\n").length + 1)}
      value=${text}
      onInput=${(/** @type {any} */ event) => onText(event.target.value)}
      onKeyDown=${onKey}
    ></textarea>
    <div class="row end">
      <span class="hint">Sending starts a new branch; the old one stays.</span>
      <button type="button" class="quiet" onClick=${onCancel}>Cancel</button>
      <button type="button" class="button primary" disabled=${!text.trim()} onClick=${onSave}>Send</button>
    </div>
  </div>`;
}

/** @param {MessageProps} props */
function Answer({ message, conversation, models, isLast, attempt, onDrawn }) {
  const isRunning = message.state === "streaming";
  const again = (/** @type {string} */ model) =>
    attempt(() => conversation.answerAgain(/** @type {string} */ (message.parent_id), model));
  const own = message.model ?? conversation.model ?? "";
  return html`
    <${Reasoning} message=${message} conversation=${conversation} />
    <${Markdown} message=${message} conversation=${conversation} onDrawn=${onDrawn} />
    ${message.state === "failed" &&
    html`<${ErrorCard}
      title=${textOf(message.content) ? "The answer broke off" : "No answer came"}
      problem=${message.error ?? { message: "The server gave no reason.", code: "unknown" }}
      onRetry=${isLast ? () => again(own) : undefined}
    />`}
    ${!isRunning &&
    html`<div class="actions">
      <${Siblings} message=${message} conversation=${conversation} attempt=${attempt} />
      <${CopyButton} text=${textOf(message.content)} />
      <${IconButton} icon="refresh" label="Answer again" disabled=${Boolean(conversation.running)} onClick=${() => again(own)} />
      ${models.length > 1 &&
      html`<${Menu}
        label="Answer again with another model"
        class="slim"
        button=${html`<${Icon} name="chevron" />`}
        choices=${models.map((model) => ({
          label: model.id,
          isDisabled: model.state !== "ready" || Boolean(conversation.running),
          onChoose: () => again(model.id),
        }))}
      />`}
      <span class="facts">${[message.model, ...answerFacts(message)].filter(Boolean).join(" · ")}</span>
    </div>`}
  `;
}

/** @param {{message: Message, conversation: Conversation}} props */
function Reasoning({ message, conversation }) {
  const body = useRef(/** @type {HTMLElement | null} */ (null));
  const [isThere, setThere] = useState(Boolean(message.reasoning));
  const [isThinking, setThinking] = useState(!textOf(message.content));
  const isRunning = message.state === "streaming";
  const text = message.reasoning ?? "";
  useLayoutEffect(() => {
    if (!isRunning) return;
    return conversation.read(message.id, ({ content, reasoning, isNew }) => {
      if (content) setThinking(false);
      if (!reasoning && !isNew) return;
      if (reasoning) setThere(true);
      if (!body.current) return;
      if (isNew) body.current.textContent = withVisibleControls(reasoning);
      else body.current.append(withVisibleControls(reasoning));
    });
  }, [message.id, isRunning]);
  const show = (/** @type {HTMLElement | null} */ element) => {
    if (element && element !== body.current) element.textContent = withVisibleControls(text);
    body.current = element;
  };
  if (!isThere && !text) return null;
  return html`<details class="reasoning">
    <summary><${Icon} name="right" />${isRunning && isThinking ? "Thinking…" : "Thoughts"}</summary>
    <div dir="auto" ref=${show}></div>
  </details>`;
}

/** @param {{message: Message, conversation: Conversation, onDrawn: () => void}} props */
function Markdown({ message, conversation, onDrawn }) {
  const root = useRef(/** @type {HTMLElement | null} */ (null));
  const view = useRef(/** @type {MarkdownView | null} */ (null));
  const isRunning = message.state === "streaming";
  const [isEmpty, setEmpty] = useState(!textOf(message.content));
  useLayoutEffect(() => {
    const drawing = (view.current ??= new MarkdownView(/** @type {HTMLElement} */ (root.current)));
    const text = textOf(message.content);
    drawing.onDrawn(onDrawn);
    setEmpty(!text);
    if (!isRunning) {
      if (drawing.length === text.length && text) drawing.finish(); // all of it was drawn while it came
      else drawing.set(text, true);
      return () => drawing.destroy();
    }
    drawing.set(text, false);
    const end = conversation.read(message.id, ({ content, isNew }) => {
      if (isNew) drawing.set(content, false);
      else if (content) drawing.append(content);
      if (content) setEmpty(false);
    });
    return () => (end(), drawing.destroy());
  }, [message.id, isRunning]);
  return html`<div class="answer-body" ref=${root}></div>
    ${isRunning && isEmpty && html`<div class="waiting" aria-hidden="true"><span></span><span></span><span></span></div>`}`;
}

/** @param {{message: Message, conversation: Conversation, attempt: (work: () => Promise<void>) => void}} props */
function Siblings({ message, conversation, attempt }) {
  const { all, index } = siblingsOf(conversation.messages, message);
  if (all.length < 2) return null;
  const go = (/** @type {number} */ i) => attempt(() => conversation.choose(all[i].id));
  return html`<span class="siblings" role="group" aria-label="Versions">
    <${IconButton} icon="left" label="Previous version" disabled=${index === 0} onClick=${() => go(index - 1)} />
    <span>${index + 1} / ${all.length}</span>
    <${IconButton} icon="right" label="Next version" disabled=${index === all.length - 1} onClick=${() => go(index + 1)} />
  </span>`;
}

/** @param {{text: string}} props */
function CopyButton({ text }) {
  const [isCopied, setCopied] = useState(false);
  const copy = async () => {
    setCopied(await copyText(text));
    setTimeout(() => setCopied(false), 1500);
  };
  return html`<${IconButton} icon="copy" label=${isCopied ? "Copied" : "Copy"} class=${isCopied ? "done" : ""} onClick=${copy} />`;
}
