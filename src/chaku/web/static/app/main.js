/** Starts the page. */

import { App, NotStarted } from "./app.js";
import { problemOf } from "../data/api.js";
import { html, render } from "../ui/html.js";
import { Library } from "../data/library.js";
import { applyTheme } from "./theme.js";

applyTheme();
const root = /** @type {HTMLElement} */ (document.getElementById("app"));
const library = new Library();
try {
  await library.start();
  render(html`<${App} library=${library} />`, root);
} catch (error) {
  render(html`<${NotStarted} problem=${problemOf(error)} />`, root);
}
