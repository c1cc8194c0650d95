/** One message: what was said, and what can be done with it. */

/** @import {Message, Model} from "../data/types.js" */
/** @import {Conversation} from "./conversation.js" */
import { clock } from "../data/clock.js";
import { useChanges } from "../data/observable.js";
import { copyText } from "../ui/clipboard.js";
import { ago, answerFacts, withVisibleControls } from "../ui/format.js";
import { Boundary, html, memo, useLayoutEffect, useRef, useState } from "../ui/html.js";
import { Icon, IconButton } from "../ui/icons.js";
import { Menu } from "../ui/menu.js";
import { ErrorCard } from "../ui/notices.js";
import { MarkdownView } from "../markdown/markdown_view.js";
import { Attached } from "./attached.js";
import { contentParts } from "./attachments.js";
import { Editor, LONGEST_WRITTEN } from "./editor.js";
import { problemOf } from "../data/api.js";
import { Continue, MoreActions, Source, Thumbs } from "./message_actions.js";
import { ToolCalls, Told } from "./told.js";
import { textOf } from "./tree.js";

const LONG_TEXT = 3_000;

/**
 * @typedef {object} MessageProps
 * @property {Message} message
 * @property {Conversation} conversation
 * @property {Model[]} models
 * @property {boolean} isLast
 * @property {boolean} isBusy  an answer is being written
 * @property {string} version  "2 / 3" where there are other versions of it
 * @property {(work: () => Promise<void>) => Promise<boolean>} attempt  do something, and say so when it fails
 * @property {boolean} isBlind  no model is named
 */

/** One message; what is wrong with it stays its own trouble. */
export const MessageView = memo(
  /** @param {MessageProps} props */ (props) => {
    const { role, id } = props.message;
    const model = props.isBlind ? null : props.message.model;
    const name = { user: "You", assistant: `Answer${model ? ` of ${model}` : ""}`, system: "System message", tool: "Tool result" }[role];
    const kind = { user: UserMessage, assistant: Answer, system: Told, tool: Told }[role] ?? Told;
    const broken = (/** @type {unknown} */ error) =>
      html`<${ErrorCard} title="This message can't be shown" problem=${{ ...problemOf(error), fix: "The rest of the chat is not affected. Export the chat to see the record." }} />`;
    return html`<article class=${`message ${role}`} data-message=${id} tabindex="-1">
      <h3 class="visually-hidden">${name ?? "Message"}</h3>
      <${Boundary} fallback=${broken}><${kind} ...${props} /><//>
    </article>`;
  },
);

/** @param {MessageProps} props */
function UserMessage({ message, conversation, isBusy, version, attempt }) {
  const [isEdited, setEdited] = useState(false);
  const [isWhole, setWhole] = useState(false);
  const { text, attachments } = contentParts(message.content);
  const isLong = text.length > LONG_TEXT && !isWhole;
  if (isEdited) {
    const save = (/** @type {Message["content"]} */ content) => attempt(() => conversation.send(content, message.parent_id ?? null));
    return html`<${Editor} text=${text} attachments=${attachments} onSave=${save} onEnd=${() => setEdited(false)} />`;
  }
  return html`
    <${Attached} files=${attachments} label="Sent with the message" />
    ${text &&
    html`<div class="said" dir="auto">
      ${withVisibleControls(isLong ? text.slice(0, LONG_TEXT) : text)}
      ${isLong && html`… <button type="button" class="quiet" onClick=${() => setWhole(true)}>Show all</button>`}
    </div>`}
    <div class="actions">
      <${Siblings} message=${message} conversation=${conversation} version=${version} attempt=${attempt} />
      <${CopyButton} text=${text} />
      <${Time} at=${message.created_at} />
      <${IconButton} icon="edit" label="Edit" class="edit" disabled=${isBusy} onClick=${() => setEdited(true)} />
      <${MoreActions} message=${message} conversation=${conversation} isBusy=${isBusy} attempt=${attempt} />
    </div>
  `;
}

/** @param {MessageProps} props */
function Answer({ message, conversation, models, isLast, isBusy, version, attempt, isBlind }) {
  const isRunning = message.state === "streaming";
  const again = (/** @type {string} */ model) =>
    attempt(() => conversation.answerAgain(/** @type {string} */ (message.parent_id), model));
  const own = message.model ?? conversation.model ?? "";
  const [panel, setPanel] = useState(null);
  const [isEdited, setEdited] = useState(false);
  const [hasSource, setSource] = useState(false);
  const text = textOf(message.content);
  if (isEdited) {
    const save = (/** @type {Message["content"]} */ content) => attempt(() => conversation.edit(message.id, content));
    return html`<${Editor} text=${text} attachments=${[]} isAnswer onSave=${save} onEnd=${() => setEdited(false)} />`;
  }
  const more = [
    { label: hasSource ? "Show it formatted" : "Show the source", isDisabled: !text, onChoose: () => setSource(!hasSource) },
    { label: "Edit this answer", isDisabled: isBusy || text.length > LONGEST_WRITTEN, onChoose: () => setEdited(true) },
  ];
  return html`
    <${Reasoning} message=${message} conversation=${conversation} />
    ${hasSource && !isRunning
      ? html`<${Source} text=${withVisibleControls(text)} />`
      : html`<${Markdown} message=${message} conversation=${conversation} />`}
    <${ToolCalls} message=${message} />
    ${message.state === "failed" &&
    html`<${ErrorCard}
      title=${textOf(message.content) ? "The answer broke off" : "No answer came"}
      problem=${message.error ?? { message: "The server gave no reason.", code: "unknown" }}
      onRetry=${isLast ? () => again(own) : undefined}
    />`}
    ${isLast && html`<${Continue} message=${message} conversation=${conversation} models=${models} isBusy=${isBusy} attempt=${attempt} />`}
    ${!isRunning &&
    html`<div class="actions">
      <${Siblings} message=${message} conversation=${conversation} version=${version} attempt=${attempt} />
      <${CopyButton} text=${text} />
      <${IconButton} icon="refresh" label="Answer again" disabled=${isBusy} onClick=${() => again(own)} />
      ${models.length > 1 &&
      !isBlind &&
      html`<${Menu}
        label="Answer again with another model"
        class="slim"
        button=${html`<${Icon} name="chevron" />`}
        choices=${models.map((model) => ({
          label: model.id,
          isDisabled: model.state !== "ready" || isBusy,
          onChoose: () => again(model.id),
        }))}
      />`}
      <${Thumbs} message=${message} conversation=${conversation} attempt=${attempt} onPanel=${setPanel} />
      <${MoreActions} message=${message} conversation=${conversation} isBusy=${isBusy} attempt=${attempt} more=${more} />
      <span class="facts">${[isBlind ? null : message.model, ...answerFacts(message)].filter(Boolean).join(" · ")}</span>
      <${Time} at=${message.created_at} />
    </div>`}
    ${panel}
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
    return conversation.answers.read(message.id, ({ content, reasoning, isNew }) => {
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

/** @param {{message: Message, conversation: Conversation}} props */
function Markdown({ message, conversation }) {
  const root = useRef(/** @type {HTMLElement | null} */ (null));
  const view = useRef(/** @type {MarkdownView | null} */ (null));
  const isRunning = message.state === "streaming";
  const [isEmpty, setEmpty] = useState(!textOf(message.content));
  useLayoutEffect(() => {
    const drawing = (view.current ??= new MarkdownView(/** @type {HTMLElement} */ (root.current)));
    const text = textOf(message.content);
    setEmpty(!text);
    drawing.set(text, !isRunning);
    if (!isRunning) return () => drawing.destroy();
    const end = conversation.answers.read(message.id, ({ content, isNew }) => {
      if (isNew) drawing.set(content, false);
      else if (content) drawing.append(content);
      if (content) setEmpty(false);
    });
    return () => (end(), drawing.destroy());
  }, [message.id, isRunning, isRunning || textOf(message.content)]);
  return html`<div class="answer-body" ref=${root}></div>
    ${isRunning && isEmpty && html`<div class="waiting" aria-hidden="true"><span></span><span></span><span></span></div>`}`;
}

/** @param {{message: Message, conversation: Conversation, version: string, attempt: MessageProps["attempt"]}} props */
function Siblings({ message, conversation, version, attempt }) {
  if (!version) return null;
  const go = (/** @type {number} */ step) => {
    const { all, index } = conversation.branches.siblingsOf(message);
    attempt(() => conversation.choose(all[index + step].id));
  };
  const [number, total] = version.split(" / ");
  return html`<span class="siblings" role="group" aria-label="Versions">
    <${IconButton} icon="left" label="Previous version" disabled=${number === "1"} onClick=${() => go(-1)} />
    <span>${version}</span>
    <${IconButton} icon="right" label="Next version" disabled=${number === total} onClick=${() => go(1)} />
  </span>`;
}

/** When a message was sent; the whole date on hover and focus. @param {{at: string}} props */
function Time({ at }) {
  useChanges(clock);
  const time = new Date(at);
  if (Number.isNaN(time.getTime())) return null;
  const whole = time.toLocaleString("en", { dateStyle: "full", timeStyle: "medium" });
  return html`<time class="time" tabindex="0" datetime=${at} title=${whole}>${ago(time, new Date())}<span> · ${whole}</span></time>`;
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
