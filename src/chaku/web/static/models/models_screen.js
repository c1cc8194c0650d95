/** The models: what is served now and how busy it is, what is pulled, what can be. */

/** @import {Model} from "../data/types.js" */
import { get } from "../data/api.js";
import { useChanges } from "../data/observable.js";
import { Resource } from "../data/resource.js";
import { count, modelState, shortTokens } from "../ui/format.js";
import { html, useLayoutEffect, useMemo } from "../ui/html.js";
import { short } from "../ui/plot.js";
import { size } from "../ui/size.js";
import { Empty, Progress, Shown } from "../ui/states.js";
import { Table } from "../ui/table.js";

/** @param {import("../app/app.js").ScreenProps} props */
export function ModelsScreen({ session, models }) {
  useChanges(models);
  const kept = useMemo(() => new Resource(() => get("/models/kept").then(({ models }) => models), (models) => !models.length), []);
  useLayoutEffect(() => void kept.load(), [kept]);
  useLayoutEffect(() => void (document.title = "Models · chaku"), []);
  return html`<main class="screen">
    <h1>Models</h1>
    <p class="hint">Programs reach the served models at <code>${location.origin}/v1</code></p>
    <h2>Served</h2>
    ${models.all.length
      ? html`<${Table} label="Served models" columns=${SERVED} rows=${models.all} keyOf=${(/** @type {Model} */ model) => model.id} />`
      : html`<${Empty} title="No model is served" command="chaku serve smollm2-135m">Stop the server and start it with one, for example the built-in 135M model.<//>`}
    ${session.facts?.sees_runs &&
    html`<h2>On this machine</h2>
      <${Shown}
        resource=${kept}
        draw=${(/** @type {any[]} */ models) => html`<${Table} label="Models on this machine" columns=${KEPT} rows=${models} keyOf=${(/** @type {any} */ model) => model.name} />`}
        empty=${html`<${Empty} title="Nothing is pulled yet" command="chaku pull smollm2-135m">A model that is pulled starts without a download.<//>`}
      />`}
  </main>`;
}

/** @type {import("../ui/table.js").Column<Model>[]} */
const SERVED = [
  { name: "Model", cell: (model) => html`<strong>${model.id}</strong>`, by: (model) => model.id },
  { name: "State", cell: (model) => html`<${State} model=${model} />`, by: (model) => model.state },
  { name: "Context (tokens)", cell: (model) => (model.context_tokens ? shortTokens(model.context_tokens) : "–"), by: (model) => model.context_tokens, isNumber: true },
  { name: "Running", cell: (model) => model.running ?? "–", by: (model) => model.running, isNumber: true },
  { name: "Waiting", cell: (model) => model.waiting ?? "–", by: (model) => model.waiting, isNumber: true },
  { name: "Slots", cell: (model) => model.slots ?? "–", by: (model) => model.slots, isNumber: true },
  { name: "Can", cell: (model) => html`<${Capabilities} names=${model.capabilities ?? []} />` },
];

const ABILITIES = ["chat", "completions", "embeddings", "tools", "vision", "reasoning"];

/** What a model can do, and on request the parameters that it honours. @param {{names: string[]}} props */
function Capabilities({ names }) {
  const parameters = names.filter((name) => !ABILITIES.includes(name));
  return html`${names.filter((name) => ABILITIES.includes(name)).join(", ") || "–"}
    ${parameters.length > 0 && html`<details><summary class="hint">${count(parameters.length, "parameter")}</summary>${parameters.join(", ")}</details>`}`;
}

/** @param {{model: Model}} props */
function State({ model }) {
  const { kind, text } = modelState(model);
  return html`<span class="state"><span class=${`dot ${kind}`}></span>${text}</span>
    ${model.progress != null && model.state !== "ready" && html`<${Progress} value=${model.progress} label=${`${model.id} is ${model.state}`} />`}`;
}

/** @type {import("../ui/table.js").Column<any>[]} */
const KEPT = [
  { name: "Model", cell: (model) => html`<strong>${model.name}</strong>`, by: (model) => model.name },
  { name: "Parameters", cell: (model) => (model.parameters ? short(model.parameters) : "–"), by: (model) => model.parameters, isNumber: true },
  { name: "Size", cell: (model) => size(model.bytes), by: (model) => model.bytes, isNumber: true },
  { name: "Context (tokens)", cell: (model) => (model.context_tokens ? shortTokens(model.context_tokens) : "–"), by: (model) => model.context_tokens, isNumber: true },
  { name: "State", cell: (model) => model.state ?? html`<code>chaku pull ${model.name}</code>`, by: (model) => model.state },
];
