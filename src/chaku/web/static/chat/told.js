/** What was said by neither side: system messages, calls of tools and what they answered. Shown as what it is, folded when long. */

/** @import {Message} from "../data/types.js" */
import { withVisibleControls } from "../ui/format.js";
import { html } from "../ui/html.js";
import { Icon } from "../ui/icons.js";
import { textOf } from "./tree.js";

const SHORT = 300; // characters that are shown unfolded
const SHOWN = 20_000;

/** A system message, or a tool's answer. @param {{message: Message}} props */
export function Told({ message }) {
  const name = message.role === "tool" ? `Tool result${message.extra?.name ? `: ${message.extra.name}` : ""}` : `${message.role} message`;
  return html`<${Folded} name=${name} text=${textOf(message.content)} />`;
}

/** The calls of tools in an answer. @param {{message: Message}} props */
export function ToolCalls({ message }) {
  const calls = message.extra?.tool_calls;
  if (!Array.isArray(calls)) return null;
  return calls.map(
    (call) => html`<${Folded} name=${`Tool call: ${call?.function?.name ?? "without a name"}`} text=${readable(call?.function?.arguments)} />`,
  );
}

/** @param {{name: string, text: string}} props */
function Folded({ name, text }) {
  return html`<details class="told" open=${text.length <= SHORT}>
    <summary><${Icon} name="right" />${withVisibleControls(name)}</summary>
    <pre tabindex="0" role="region" aria-label=${name}>${withVisibleControls(text.slice(0, SHOWN))}${text.length > SHOWN && "…"}</pre>
  </details>`;
}

/** The arguments of a call, with its lines apart. @param {unknown} given */
function readable(given) {
  if (typeof given !== "string") return JSON.stringify(given ?? {}, null, 2);
  if (/\d{16}/.test(given)) return given; // JSON.parse rounds integers above 2^53
  try {
    return JSON.stringify(JSON.parse(given), null, 2);
  } catch {
    return given;
  }
}
