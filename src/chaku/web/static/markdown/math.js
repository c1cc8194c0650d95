/** Fills TeX placeholders. KaTeX and its style come with the first formula, and not before. */

/** @type {Promise<any> | null} */
let loading = null;
/** @type {any} */
let katex = null;
/** @type {Map<string, HTMLElement>} */
const drawn = new Map();
const DRAWN_LIMIT = 500;
const TEX_LIMIT = 20_000;

const OPTIONS = { throwOnError: true, trust: false, maxSize: 30, maxExpand: 300, strict: "ignore" };

/**
 * Draw the formulas below an element: at once when KaTeX is here, else when it has come.
 * @param {ParentNode} parent
 */
export function drawMath(parent) {
  const places = /** @type {HTMLElement[]} */ ([...parent.querySelectorAll(".math[data-tex]")]);
  if (!places.length) return;
  if (katex) return places.forEach(draw);
  loading ??= load();
  loading.then(
    () => places.forEach(draw),
    () => void (loading = null), // the TeX stays readable; the next formula tries again
  );
}

async function load() {
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = new URL("../vendor/katex/katex.css", import.meta.url).href;
  document.head.append(style);
  katex = (await import("../vendor/katex/katex.js")).default;
}

/**
 * What `katex.render` does, in its two steps. Elements get their styles through the DOM, which the page's policy allows
 * (in the strings of renderToString it would drop them); only MathML's come as attributes, which are taken off between
 * the steps: nobody sees that copy, screen readers need no borders.
 * @param {any} library @param {string} tex @param {boolean} isDisplay
 */
function drawnBy(library, tex, isDisplay) {
  const formula = document.createElement("span");
  try {
    const tree = library.__renderToDomTree(tex, { ...OPTIONS, displayMode: isDisplay });
    withoutStyleAttributes(tree);
    formula.append(tree.toNode());
  } catch (error) {
    formula.className = "math-error"; // TeX that can't be read, or that never ends, stays TeX
    formula.title = error instanceof Error ? error.message : "";
    formula.textContent = tex;
  }
  return formula;
}

/** @param {any} node */
function withoutStyleAttributes(node) {
  if (node.attributes?.style) delete node.attributes.style;
  for (const child of node.children ?? []) withoutStyleAttributes(child);
}

/** @param {HTMLElement} place */
function draw(place) {
  const tex = place.dataset.tex ?? "";
  if (tex.length > TEX_LIMIT) return;
  const isDisplay = place.dataset.display === "1";
  const key = `${isDisplay}${tex}`;
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
