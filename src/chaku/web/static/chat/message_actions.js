/** What can be done with one message: rate it, continue it, edit, link to or delete it, see how it was written. */

/** @import {Message, Model} from "../data/types.js" */
/** @import {Conversation} from "./conversation.js" */
import { problemOf } from "../data/api.js";
import { copyText } from "../ui/clipboard.js";
import { html, useLayoutEffect, useRef } from "../ui/html.js";
import { Icon, IconButton } from "../ui/icons.js";
import { onDemand } from "../ui/on_demand.js";
import { Menu } from "../ui/menu.js";
import { textOf } from "./tree.js";

/** @typedef {(work: () => Promise<void>) => Promise<boolean>} Attempt  do something, and say so when it fails */

const FeedbackPanel = onDemand(async () => (await import("./feedback_panel.js")).FeedbackPanel);

/** Why an answer ended early, "" where it did not. @param {Message} message */
function whyCutOff(message) {
  if (!textOf(message.content) || message.extra?.tool_calls) return "";
  if (message.state === "stopped") return "The answer was stopped.";
  if (message.state === "failed") return "The text so far is kept.";
  return message.state === "complete" && message.finish_reason === "length" ? "The answer reached its token limit." : "";
}

/**
 * The way on for an answer that was cut off, or why there is none.
 * @param {{message: Message, conversation: Conversation, models: Model[], isBusy: boolean, attempt: Attempt}} props
 */
export function Continue({ message, conversation, models, isBusy, attempt }) {
  const why = whyCutOff(message);
  if (!why) return null;
  const name = message.model ?? conversation.model ?? "";
  const model = models.find(({ id }) => id === name);
  const isAble = model?.capabilities?.includes("continue_final_message");
  if (!isAble) {
    const reason = model?.state === "ready" ? `${name} can't continue an answer: “Answer again” begins a new one.` : `${name} is not ready.`;
    return html`<p class="hint continue">${why} ${reason}</p>`;
  }
  return html`<p class="row continue">
    <button type="button" class="button" disabled=${isBusy} onClick=${() => attempt(() => conversation.resume(message))}>Continue</button>
    <span class="hint">${why}</span>
  </p>`;
}

/**
 * Thumbs, and what belongs to them.
 * @param {{message: Message, conversation: Conversation, attempt: Attempt, onPanel: (panel: any) => void}} props
 */
export function Thumbs({ message, conversation, attempt, onPanel }) {
  const given = message.feedback?.value;
  const close = () => onPanel(null);
  const rate = async (/** @type {"up" | "down"} */ value) => {
    if (given === value) return void attempt(() => conversation.unrate(message.id)).then(close);
    let isAsked = false;
    const work = async () => {
      try {
        await conversation.rate(message.id, { value });
      } catch (error) {
        if (problemOf(error).code !== "consent_needed") throw error;
        isAsked = true;
      }
    };
    if (await attempt(work)) onPanel(html`<${FeedbackPanel} messageId=${message.id} asked=${isAsked ? value : null} conversation=${conversation} attempt=${attempt} onClose=${close} />`);
  };
  const button = (/** @type {"up" | "down"} */ value, /** @type {string} */ label) =>
    html`<${IconButton} icon="thumb" label=${label} class=${`thumb-${value}`} aria-pressed=${given === value} onClick=${() => rate(value)} />`;
  return html`<span class="thumbs" role="group" aria-label="Rate the answer">
    ${button("up", "Good answer")}${button("down", "Bad answer")}
  </span>`;
}

/**
 * What is done less often.
 * @param {object} props
 * @param {Message} props.message
 * @param {Conversation} props.conversation
 * @param {boolean} props.isBusy
 * @param {Attempt} props.attempt
 * @param {{label: string, isDisabled?: boolean, onChoose: () => void}[]} [props.more]  before the others
 */
export function MoreActions({ message, conversation, isBusy, attempt, more = [] }) {
  const root = useRef(/** @type {HTMLElement | null} */ (null));
  const numAfter = conversation.branches.numBelow(message.id);
  const after = numAfter === 0 ? "" : numAfter === 1 ? " and the message after it" : ` and the ${numAfter} messages after it`;
  const copyLink = async () => {
    const link = `${location.origin}/chat/${conversation.id}?msg=${message.id}`;
    conversation.say((await copyText(link)) ? "Link copied" : `This browser does not let the page copy. The link: ${link}`);
  };
  const drop = () =>
    attempt(async () => {
      const next = /** @type {HTMLElement | null | undefined} */ (root.current?.closest(".chat-panel")?.querySelector(".composer textarea"));
      await conversation.remove(message.id);
      next?.focus();
      conversation.say(`Message${after} deleted`, "Undo", () => attempt(() => conversation.restore(message.id)));
    });
  return html`<span ref=${root}>
    <${Menu}
      label="More actions"
      class="slim"
      button=${html`<${Icon} name="more" />`}
      choices=${[
        ...more,
        { label: "Copy a link to this message", onChoose: copyLink },
        { label: `Delete this message${after}`, isDisabled: isBusy, onChoose: drop },
      ]}
    />
  </span>`;
}

/** An answer as the model wrote it. @param {{text: string}} props */
export function Source({ text }) {
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  useLayoutEffect(() => box.current?.focus({ preventScroll: true }), []);
  return html`<pre class="source" ref=${box} tabindex="0" role="region" aria-label="Source of the answer" dir="auto">${text}</pre>`;
}
