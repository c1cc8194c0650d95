/** A report in a file of its own: the run is in the page, and nothing is asked for. */

import { html, render } from "../ui/html.js";
import { RunView } from "./run_view.js";

const run = JSON.parse(document.getElementById("run")?.textContent ?? "null");
const place = document.getElementById("app");
if (place) render(html`<main class="screen report"><h1>${run.name}</h1><${RunView} run=${run} /></main>`, place);
