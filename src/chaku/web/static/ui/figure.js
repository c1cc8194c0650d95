/** A picture of numbers with its title, and the same numbers as a table at the press of a button. */

import { html, useState } from "./html.js";

/** @param {{title: string, picture: () => any, table: () => any}} props */
export function Figure({ title, picture, table }) {
  const [isTable, setTable] = useState(false);
  return html`<figure class="plot">
    <figcaption>
      <span>${title}</span>
      <button type="button" class="quiet" aria-pressed=${isTable} onClick=${() => setTable(!isTable)}>${isTable ? "Plot" : "Table"}</button>
    </figcaption>
    ${isTable ? table() : picture()}
  </figure>`;
}
