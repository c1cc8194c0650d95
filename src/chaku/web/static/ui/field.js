/** Labelled places to fill in. The label is tied to its control, and the help stands in it. */

import { html, useId } from "./html.js";

/** @param {{label: string, help?: string, draw: (id: string) => any}} props  draw: the control, which takes the id */
export function Field({ label, help = "", draw }) {
  const id = useId();
  return html`<div class="field">
    <label for=${id}>${label}${help && html`<small>${help}</small>`}</label>
    ${draw(id)}
  </div>`;
}

/**
 * One of several, in the browser's own list.
 * @param {object} props
 * @param {string} props.label
 * @param {string} [props.help]
 * @param {string} props.value
 * @param {{value: string, label: string}[]} props.options
 * @param {(value: string) => void} props.onChoose
 */
export function Select({ label, help, value, options, onChoose }) {
  const draw = (/** @type {string} */ id) => html`<select id=${id} value=${value} onChange=${(/** @type {any} */ event) => onChoose(event.target.value)}>
    ${options.map((option) => html`<option key=${option.value} value=${option.value}>${option.label}</option>`)}
  </select>`;
  return html`<${Field} label=${label} help=${help} draw=${draw} />`;
}
