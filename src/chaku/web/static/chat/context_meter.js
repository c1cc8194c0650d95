/** Shows before sending how much of the model's context is taken. Comes with the first words. */

/** @import {Message} from "../data/types.js" */
import { shortTokens } from "../ui/format.js";
import { html } from "../ui/html.js";
import { contextUse } from "./context_use.js";

const NUMBER = new Intl.NumberFormat("en");
const NEARLY_FULL = 0.8;

/** @param {{path: Message[], system: string, draft: string, limit: number}} props  limit in tokens */
export function ContextMeter({ path, system, draft, limit }) {
  const used = contextUse(path, system, draft);
  const share = used / limit;
  const whole = `About ${NUMBER.format(used)} of ${NUMBER.format(limit)} tokens of context: the chat and what you are writing`;
  const text = share > 1 ? `about ${NUMBER.format(used)} tokens, ${NUMBER.format(limit)} fit` : `about ${Math.max(1, Math.round(share * 100))} % of ${shortTokens(limit)} tokens`;
  return html`<span class=${`meter${share > NEARLY_FULL ? " full" : ""}`} role="img" aria-label=${share > 1 ? `${whole}. Shorten it, or begin a new chat.` : whole} title=${whole}>${text}</span>`;
}
