/** The door, when the server has keys. */

/** @import {Session} from "../data/session.js" */
import { problemOf } from "../data/api.js";
import { html, useLayoutEffect, useRef, useState } from "../ui/html.js";
import { onDemand } from "../ui/on_demand.js";

const GuestNotice = onDemand(async () => (await import("../guest/guest_notice.js")).GuestNotice);

/** @param {{session: Session}} props */
export function Login({ session }) {
  const [key, setKey] = useState("");
  const [complaint, setComplaint] = useState("");
  const [isAsking, setAsking] = useState(false);
  const ref = useRef(/** @type {HTMLInputElement | null} */ (null));
  useLayoutEffect(() => ref.current?.focus(), []);
  const submit = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setAsking(true);
    setComplaint("");
    try {
      await session.login(key.trim());
    } catch (error) {
      const { message, fix } = problemOf(error);
      setComplaint([message, fix].filter(Boolean).join(" "));
      setAsking(false);
    }
  };
  return html`<main class="login">
    ${session.facts?.guest_notice && html`<${GuestNotice} session=${session} />`}
    <form onSubmit=${submit}>
      <h1>chaku</h1>
      <p>This server asks for an API key. Your chats belong to the key.</p>
      <label for="key">API key</label>
      <input
        ref=${ref}
        id="key"
        type="password"
        autocomplete="current-password"
        spellcheck=${false}
        placeholder="ck-…"
        value=${key}
        aria-describedby="key-complaint"
        aria-invalid=${Boolean(complaint)}
        onInput=${(/** @type {any} */ event) => setKey(event.target.value)}
      />
      <p id="key-complaint" class="complaint" role="alert">${complaint}</p>
      <button type="submit" class="button primary" disabled=${!key.trim() || isAsking}>Log in</button>
      <p class="hint">Whoever runs the server makes one with <code>chaku keys create NAME</code>.</p>
    </form>
  </main>`;
}
