/** Fills TeX placeholders. KaTeX and its style come with the first formula, and not before. */

/** @type {Promise<any> | null} */
let loading = null;
/** @type {any} */
let katex = null;
/** @type {Map<string, HTMLElement>} */
const drawn = new Map();
const DRAWN_LIMIT = 500;
const TEX_LIMIT = 20_000;

/** `katex.render` sets styles through the DOM; in the strings of renderToString the page's policy would drop them. */
const OPTIONS = { throwOnError: false, trust: false, maxSize: 30, maxExpand: 300, strict: "ignore" };

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
  style.href = new URL("./vendor/katex/katex.css", import.meta.url).href;
  document.head.append(style);
  katex = (await import("./vendor/katex/katex.js")).default;
}

/** @param {HTMLElement} place */
function draw(place) {
  const tex = place.dataset.tex ?? "";
  if (tex.length > TEX_LIMIT) return;
  const isDisplay = place.dataset.display === "1";
  const key = `${isDisplay}${tex}`;
  let formula = drawn.get(key);
  if (!formula) {
    formula = document.createElement("span");
    katex.render(tex, formula, { ...OPTIONS, displayMode: isDisplay });
    if (drawn.size >= DRAWN_LIMIT) drawn.clear();
    drawn.set(key, formula);
  }
  place.classList.toggle("display", isDisplay);
  place.replaceChildren(formula.cloneNode(true));
}
