/** What happens with what is written in the arena, asked once before the first battle. */

import { html, useState } from "../ui/html.js";

/** @param {{onAgree: (publish: boolean) => void}} props */
export function ConsentForm({ onAgree }) {
  const [publish, setPublish] = useState(false);
  return html`<form class="consent" onSubmit=${(/** @type {Event} */ event) => (event.preventDefault(), onAgree(publish))}>
    <h2>Before the first battle</h2>
    <p>This server keeps your messages, both answers and your vote, to rate its models. Write nothing here that must stay private.</p>
    <label><input type="checkbox" checked=${publish} onChange=${() => setPublish(!publish)} /> My messages and their answers may also be shown to others, beside the ratings</label>
    <p><button type="submit" class="button primary">I agree: begin</button></p>
  </form>`;
}
