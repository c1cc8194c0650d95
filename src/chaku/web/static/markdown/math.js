/** Fills TeX placeholders. KaTeX and its style come with the first formula, and not before. */

import { addStyle } from "../ui/style.js";
import { hasTime, nextSlice } from "./slices.js";

/** @type {Promise<any> | null} */
let loading = null;
/** @type {any} */
let katex = null;
/** @type {Map<string, HTMLElement>} */
const drawn = new Map();
const DRAWN_LIMIT = 500;
const COPIED_AT_ONCE = 500; // characters of TeX: copies cost layout too
const TEX_LIMIT = 1_200; // characters; longer TeX stays TeX: one formula is drawn in one task, and busy machines take 0.5 ms for each

const MAX_DEPTH = 150; // elements in one another; some thousands crash the tab

const OPTIONS = { throwOnError: true, trust: false, maxSize: 30, maxExpand: 300, strict: "ignore" };

/**
 * Draw the formulas below an element: at once when KaTeX is here, else when it has come.
 * @param {ParentNode} parent
 */
export function drawMath(parent) {
  const places = /** @type {HTMLElement[]} */ ([...parent.querySelectorAll(".math[data-tex]")]);
  if (!places.length) return;
  if (katex) return void drawAll(places);
  loading ??= load();
  loading.then(
    () => drawAll(places),
    () => void (loading = null), // the TeX stays readable; the next formula tries again
  );
}

/** At once as far as time allows, and the rest in later slices. @param {HTMLElement[]} places */
async function drawAll(places) {
  let copied = 0;
  for (const place of places) {
    const isCopy = drawn.has(keyOf(place)) && (copied += (place.dataset.tex ?? "").length) <= COPIED_AT_ONCE;
    if (!hasTime() && !isCopy) await nextSlice();
    draw(place);
  }
}

/** @param {HTMLElement} place */
function keyOf(place) {
  return `${place.dataset.display ?? ""} ${place.dataset.tex ?? ""}`;
}

async function load() {
  void addStyle(new URL("../vendor/katex/katex.css", import.meta.url)).catch(() => {}); // formulas are legible without it
  katex = (await import("../vendor/katex/katex.js")).default;
}

/**
 * What `katex.render` does, in its two steps. Elements get their styles through the DOM, which the page's policy allows
 * (in the strings of renderToString it would drop them); only MathML's come as attributes, which are taken off between
 * the steps: nobody sees that copy, screen readers need no borders.
 * @param {any} library @param {string} tex @param {boolean} isDisplay @param {string} [output]  "mathml" needs no style sheet
 */
function drawnBy(library, tex, isDisplay, output = "htmlAndMathml") {
  const formula = document.createElement("span");
  try {
    const tree = library.__renderToDomTree(tex, { ...OPTIONS, displayMode: isDisplay, output });
    withoutStyleAttributes(tree);
    formula.append(tree.toNode());
  } catch (error) {
    formula.className = "math-error"; // TeX that can't be read, or that never ends, stays TeX
    formula.title = error instanceof Error ? error.message : "";
    formula.textContent = tex;
  }
  return formula;
}

/**
 * A formula that a browser draws by itself. TeX that is too long stays TeX.
 * @param {string} tex @param {boolean} isDisplay @returns {Promise<Node>}
 */
export async function mathmlOf(tex, isDisplay) {
  if (tex.length > TEX_LIMIT) return document.createTextNode(tex);
  loading ??= load();
  await loading;
  return drawnBy(katex, tex, isDisplay, "mathml");
}

/** @param {any} node @param {number} [depth] */
function withoutStyleAttributes(node, depth = 0) {
  if (depth > MAX_DEPTH) throw new RangeError("the formula is nested too deep");
  if (node.attributes?.style) delete node.attributes.style;
  for (const child of node.children ?? []) withoutStyleAttributes(child, depth + 1);
}

/** @param {HTMLElement} place */
function draw(place) {
  const tex = place.dataset.tex ?? "";
  if (tex.length > TEX_LIMIT) return;
  const isDisplay = place.dataset.display === "1";
  const key = keyOf(place);
  let formula = drawn.get(key);
  if (!formula) {
    formula = drawnBy(katex, tex, isDisplay);
    if (drawn.size >= DRAWN_LIMIT) drawn.clear();
    drawn.set(key, formula);
  }
  if (isDisplay) {
    place.classList.add("display");
    place.tabIndex = 0; // a long one scrolls, by keyboard too
  }
  place.replaceChildren(formula.cloneNode(true));
}
