/** The files that go with a message, each to be looked at and, while it is being written, taken off. */

/** @import {Attachment} from "./attachments.js" */
import { withVisibleControls } from "../ui/format.js";
import { html, useState } from "../ui/html.js";
import { Icon, IconButton } from "../ui/icons.js";

const SHOWN = 20_000; // characters of a text

/**
 * @param {{files: Attachment[], label?: string, onRemove?: (file: Attachment) => void}} props
 */
export function Attached({ files, label = "Attached", onRemove }) {
  const [open, setOpen] = useState(/** @type {Attachment | null} */ (null));
  if (!files.length) return null;
  return html`<div class="attached">
    <ul class="attachments" aria-label=${label}>
      ${files.map(
        (file) => html`<li>
          ${file.image
            ? html`<${Picture} url=${file.image} />`
            : html`<button type="button" class="file" aria-expanded=${open === file} title="Show the text" onClick=${() => setOpen(open === file ? null : file)}>
                <${Icon} name="text" /><span>${file.name}</span><small>${size(file.text ?? "")}</small>
              </button>`}
          ${file.image && onRemove && html`<span>${file.name}</span>`}
          ${onRemove && html`<${IconButton} icon="close" label=${`Remove ${file.name}`} onClick=${() => onRemove(file)} />`}
        </li>`,
      )}
    </ul>
    ${open &&
    files.includes(open) &&
    html`<pre class="file-text" tabindex="0" role="region" aria-label=${open.name}>${withVisibleControls((open.text ?? "").slice(0, SHOWN))}${(open.text ?? "").length > SHOWN && "…"}</pre>`}
  </div>`;
}

/** A picture. One that lies elsewhere is named, not loaded. @param {{url: string}} props */
function Picture({ url }) {
  if (/^data:image\/(png|jpeg|gif|webp);base64,/i.test(url)) return html`<img src=${url} alt="Sent with the message" />`;
  return html`<span class="image-chip">${withVisibleControls(url.slice(0, 80))}</span>`;
}

/** @param {string} text */
function size(text) {
  return text.length < 1000 ? `${text.length} B` : `${Math.round(text.length / 1000)} KB`;
}
