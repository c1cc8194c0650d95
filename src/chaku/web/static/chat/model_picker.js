/** Which model answers next, with each model's state as it is now. */

/** @import {Model} from "../data/types.js" */
import { modelState, shortTokens } from "../ui/format.js";
import { html } from "../ui/html.js";
import { Icon } from "../ui/icons.js";
import { Menu } from "../ui/menu.js";

/**
 * @param {{models: Model[], chosen: string | null, onChoose: (id: string) => void}} props
 */
export function ModelPicker({ models, chosen, onChoose }) {
  const model = models.find((m) => m.id === chosen);
  const button = html`
    ${model ? html`<${Dot} model=${model} />` : html`<span class="dot down"></span>`}
    <span class="model-name">${chosen ?? (models.length ? "Choose a model" : "No model")}</span>
    ${model && modelState(model).kind !== "ready" && html`<span class="model-state">${modelState(model).text}</span>`}
    <${Icon} name="chevron" />
  `;
  const choices = models.map((m) => ({
    isChecked: m.id === chosen,
    onChoose: () => onChoose(m.id),
    label: html`<${Dot} model=${m} />
      <span class="model-row"><span class="model-name">${m.id}</span><span class="model-state">${factsOf(m).join(" · ")}</span></span>`,
  }));
  return html`<${Menu} label=${`Model: ${chosen ?? "none"}`} class="model-picker" button=${button} choices=${choices} />`;
}

/** @param {{model: Model}} props */
function Dot({ model }) {
  const { kind, text } = modelState(model);
  return html`<span class=${`dot ${kind}`} title=${text}></span>`;
}

/** @param {Model} model */
function factsOf(model) {
  const facts = [modelState(model).text];
  if (model.context_tokens) facts.push(`${shortTokens(model.context_tokens)} context`);
  if (model.capabilities?.includes("vision")) facts.push("sees images");
  if (model.capabilities?.includes("reasoning")) facts.push("reasons");
  return facts;
}
