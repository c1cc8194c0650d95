/** One column on the screen: its model, its chat, and whether the composer writes to it. */

/** @import {Model} from "../data/types.js" */
/** @import {Column} from "./column.js" */
import { useChanges } from "../data/observable.js";
import { html, useLayoutEffect, useState } from "../ui/html.js";
import { IconButton } from "../ui/icons.js";
import { ModelPicker } from "../chat/model_picker.js";
import { Messages } from "../chat/messages.js";

/**
 * @param {object} props
 * @param {Column} props.column
 * @param {number} props.place  from 1
 * @param {Model[]} props.models
 * @param {boolean} props.isBlind
 * @param {(() => void) | null} props.onClose  null: it must stay
 * @param {() => void} props.onSettings
 * @param {() => void} props.onAddressed
 * @param {(text: string, action?: string, onAction?: () => void) => void} props.say
 * @param {(work: Promise<any>) => Promise<void>} props.attempt
 */
export function ColumnView({ column, place, models, isBlind, onClose, onSettings, onAddressed, say, attempt }) {
  useChanges(column);
  const { conversation } = column;
  useChanges(conversation);
  const [spoken, setSpoken] = useState("");
  useLayoutEffect(() => {
    conversation.announce = (text) => setSpoken(`${place}: ${text}`);
    conversation.say = say;
    return () => (conversation.announce = conversation.say = () => {});
  }, [conversation, place]);
  const choose = (/** @type {string} */ model) => attempt(conversation.update({ model, settings: conversation.settings }));
  return html`<section class="compare-column" aria-label=${`Column ${place}`}>
    <header class="bar">
      ${isBlind ? html`<h2>Model ${place}</h2>` : html`<${ModelPicker} models=${models} chosen=${conversation.model} onChoose=${choose} />`}
      <label class="addressed"><input type="checkbox" checked=${column.isAddressed} onChange=${onAddressed} /> Write here</label>
      ${conversation.running && html`<${IconButton} icon="stop" label=${`Stop answer ${place}`} onClick=${() => column.stop()} />`}
      ${!isBlind && html`<${IconButton} icon="gear" label=${`Settings of column ${place}`} onClick=${onSettings} />`}
      ${onClose && html`<${IconButton} icon="close" label=${`Remove column ${place}`} onClick=${onClose} />`}
    </header>
    <${Messages}
      conversation=${conversation}
      models=${models}
      problem=${column.problem}
      attempt=${column.attempt}
      sent=${column.numSent}
      isBlind=${isBlind}
    ><p class="hint">Nothing was asked yet.</p><//>
    <p class="visually-hidden" role="status">${spoken}</p>
  </section>`;
}
