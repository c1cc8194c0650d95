/** Help, under `?`: the page's keys, and where to read on. */

import { Dialog } from "../ui/dialog.js";
import { html } from "../ui/html.js";
import { COMMANDS, IS_MAC } from "./shortcuts.js";

const IN_PLACE = [
  ["Enter", "Send"],
  ["Shift Enter", "Start a line"],
  ["↑", "In an empty field: edit your last message"],
  ["Esc", "Stop the answer, close what is open"],
];

/** @param {{onClose: () => void}} props */
export function Shortcuts({ onClose }) {
  const rows = COMMANDS.map(({ key, ctrl, shift, what }) => {
    const keys = [ctrl && (IS_MAC ? "⌘" : "Ctrl"), shift && "Shift", key.toUpperCase()].filter(Boolean).join(" ");
    return [keys, what];
  });
  return html`<${Dialog} title="Keyboard shortcuts" onClose=${onClose}>
    <dl class="shortcuts">
      ${[...rows, ...IN_PLACE].map(
        ([keys, what]) => html`<div>
          <dt>${keys.split(" ").map((key) => html`<kbd>${key}</kbd>`)}</dt>
          <dd>${what}</dd>
        </div>`,
      )}
    </dl>
    <section>
      <h3>More help</h3>
      <p>Programs reach the same models at <code>${location.origin}/v1</code>. The <a href="/docs" target="_blank" rel="noopener">API reference</a> lists every call.</p>
      <p>Chats, votes and ratings are kept in this server's database. Messages leave the server only for a model that is served from elsewhere.</p>
      <p>On the server, <code>chaku --help</code> lists the commands.</p>
    </section>
  <//>`;
}
