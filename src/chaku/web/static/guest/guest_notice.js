/** What a guest is told, once, before the first chat: what is kept, and what the models can't do. */

/** @import {Library} from "../data/library.js" */
import { post, problemOf } from "../data/api.js";
import { html, useState } from "../ui/html.js";
import { addStyle } from "../ui/style.js";

addStyle(new URL("./guest.css", import.meta.url));

/** @param {{library: Library}} props */
export function GuestNotice({ library }) {
  const [complaint, setComplaint] = useState("");
  const begin = async (/** @type {Event} */ event) => {
    event.preventDefault();
    setComplaint("");
    try {
      await post("/guest");
      await library.start();
    } catch (error) {
      const { message, fix } = problemOf(error);
      setComplaint([message, fix].filter(Boolean).join(" "));
    }
  };
  return html`<form class="guest" onSubmit=${begin} aria-labelledby="guest-title">
    <h2 id="guest-title">Try it as a guest</h2>
    ${library.session?.guest_notice?.map((text) => html`<p>${text}</p>`)}
    <p class="complaint" role="alert">${complaint}</p>
    <button type="submit" class="button primary">I understand: begin as a guest</button>
  </form>`;
}
