/** What goes with a thumb: the question whether ratings may be used, asked once, and reasons. Comes when it is needed. */

/** @import {Conversation} from "./conversation.js" */
/** @import {Attempt} from "./message_actions.js" */
import { useChanges } from "../data/observable.js";
import { html, useLayoutEffect, useRef, useState } from "../ui/html.js";
import { IconButton } from "../ui/icons.js";

const REASONS = {
  up: ["Correct", "Helpful", "Well explained", "Right length"],
  down: ["Not correct", "Did not do what I asked", "Too long", "Too short", "Harmful"],
};
const LONGEST_REASON = 500;

/**
 * @param {object} props
 * @param {string} props.messageId
 * @param {"up" | "down" | null} props.asked  the thumb that waits for consent
 * @param {Conversation} props.conversation
 * @param {Attempt} props.attempt
 * @param {() => void} props.onClose
 */
export function FeedbackPanel({ messageId, asked, conversation, attempt, onClose }) {
  useChanges(conversation);
  const box = useRef(/** @type {HTMLElement | null} */ (null));
  const [isAsking, setAsking] = useState(asked !== null);
  const given = conversation.messages.get(messageId)?.feedback;
  useLayoutEffect(() => {
    if (isAsking) /** @type {HTMLElement} */ (box.current?.querySelector(".button")).focus();
  }, []);
  const close = () => {
    const thumb = /** @type {HTMLElement | null | undefined} */ (box.current?.closest(".message")?.querySelector(".thumbs button"));
    thumb?.focus();
    onClose();
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (event.key === "Escape") (event.preventDefault(), event.stopPropagation(), close());
  };
  const consent = (/** @type {boolean} */ isGiven) =>
    attempt(() => conversation.rate(messageId, { value: /** @type {"up" | "down"} */ (asked), consent: isGiven })).then((isDone) => isDone && setAsking(false));
  if (isAsking) {
    return html`<div class="feedback" role="group" aria-label="May ratings be used?" ref=${box} onKeyDown=${onKey}>
      <p><strong>May your ratings be used to improve models?</strong></p>
      <p>A rating is stored on this server with the chat. If you agree, whoever runs the server may use both as training or test data.</p>
      <p class="row">
        <button type="button" class="button primary" onClick=${() => consent(true)}>Yes, they may be used</button>
        <button type="button" class="button" onClick=${() => consent(false)}>No, keep them for me</button>
        <button type="button" class="quiet" onClick=${close}>Cancel</button>
      </p>
    </div>`;
  }
  if (!given) return null;
  const known = REASONS[given.value];
  const own = given.reasons.find((reason) => !known.includes(reason)) ?? "";
  const save = (/** @type {Partial<typeof given>} */ fields) => attempt(() => conversation.rate(messageId, { ...given, ...fields }));
  const toggle = (/** @type {string} */ reason) =>
    save({ reasons: given.reasons.includes(reason) ? given.reasons.filter((other) => other !== reason) : [...given.reasons, reason] });
  const write = (/** @type {string} */ text) => save({ reasons: [...given.reasons.filter((reason) => known.includes(reason)), ...(text ? [text] : [])] });
  return html`<div class="feedback" role="group" aria-label="Reasons" ref=${box} onKeyDown=${onKey}>
    <p class="row spread"><span>Thank you. What was ${given.value === "up" ? "good" : "bad"} about it?</span><${IconButton} icon="close" label="Close the reasons" onClick=${close} /></p>
    <p class="chips">
      ${known.map(
        (reason) => html`<button type="button" class="chip" aria-pressed=${given.reasons.includes(reason)} onClick=${() => toggle(reason)}>${reason}</button>`,
      )}
    </p>
    <input
      aria-label="Another reason"
      placeholder="Another reason"
      maxlength=${LONGEST_REASON}
      defaultValue=${own}
      onChange=${(/** @type {any} */ event) => write(event.target.value.trim())}
    />
    <label><input type="checkbox" checked=${given.consent} onChange=${(/** @type {any} */ event) => save({ consent: event.target.checked })} /> My ratings may be used to improve models</label>
  </div>`;
}
