/** Starts the page. */

import { problemOf } from "../data/api.js";
import { Chats } from "../data/chats.js";
import { EventStream } from "../data/events.js";
import { Models } from "../data/models.js";
import { Session } from "../data/session.js";
import { html, render } from "../ui/html.js";
import { App, NotStarted } from "./app.js";
import { applyTheme } from "./theme.js";

applyTheme();
const root = /** @type {HTMLElement} */ (document.getElementById("app"));
const events = new EventStream();
const models = new Models(events);
const chats = new Chats(events);
const session = new Session(events, [models, chats]);
try {
  await session.start();
  render(html`<${App} session=${session} models=${models} chats=${chats} events=${events} />`, root);
} catch (error) {
  render(html`<${NotStarted} problem=${problemOf(error)} />`, root);
}
