/** Preact and htm under one roof: `html` makes elements, the hooks are Preact's. */

import htm from "./vendor/htm.js";
import { h } from "./vendor/preact.js";

export const html = htm.bind(h);
export { Fragment, render } from "./vendor/preact.js";
export * from "./vendor/hooks.js";
