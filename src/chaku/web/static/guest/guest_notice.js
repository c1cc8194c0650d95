/** What a guest is told, once, before the first chat: what is kept, and what the models can't do. */

/** @import {Session} from "../data/session.js" */
import { post, problemOf } from "../data/api.js";
import { html, useState } from "../ui/html.js";
import { addStyle } from "../ui/style.js";

addStyle(new URL("./guest.css", import.meta.url));

/** @param {{session: Session}} props */
export function GuestNotice({ session }) {
  const [complaint, setComplaint] = useState("");
  const begin = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setComplaint("");
    try {
      await post("/guest");
      await session.start();
    } catch (error) {
      const { message, fix } = problemOf(error);
      setComplaint([message, fix].filter(Boolean).join(" "));
    }
  };
  return html`<form class="guest" onSubmit=${begin} aria-labelledby="guest-title">
    <h2 id="guest-title">Try it as a guest</h2>
    ${session.facts?.guest_notice?.map((text) => html`<p>${text}</p>`)}
    <p class="complaint" role="alert">${complaint}</p>
    <button type="submit" class="button primary">I understand: begin as a guest</button>
  </form>`;
}
