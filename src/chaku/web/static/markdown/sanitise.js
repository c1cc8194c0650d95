/**
 * The only place where text becomes elements. HTML made from a model's words is parsed and cleaned by DOMPurify under
 * the Trusted Types policy `chaku`, which nothing else can use; what comes out is a fragment, never a string.
 */

import DOMPurify from "../vendor/dompurify.js";

const WORKER = new URL("./worker.js", import.meta.url).href;
const policy = /** @type {any} */ (globalThis).trustedTypes?.createPolicy("chaku", {
  createHTML: (/** @type {string} */ html) => html, // reaches DOMPurify's inert parser only
  createScriptURL: (/** @type {string} */ url) => {
    if (url !== WORKER) throw new TypeError("this page loads no scripts by address, but its own worker");
    return url;
  },
});

const CONFIG = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "code", "del", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "img", "li", "ol", "p", "pre",
    "s", "span", "strong", "sub", "sup", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["alt", "class", "data-display", "data-info", "data-note", "data-tex", "href", "rel", "src", "start", "target", "title"],
  ADD_URI_SAFE_ATTR: ["data-display", "data-info", "data-note", "data-tex", "rel", "start", "target"],
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:|data:image\/(?:png|jpeg|gif|webp);base64,)/i,
  RETURN_DOM_FRAGMENT: true,
  ...(policy ? { TRUSTED_TYPES_POLICY: policy } : {}),
};

/**
 * HTML as elements that can do nothing but be read.
 * @param {string} html
 * @returns {DocumentFragment}
 */
export function fragmentOf(html) {
  return DOMPurify.sanitize(html, CONFIG);
}

/** The worker that reads Markdown and colours code; it takes no part in what is drawn. */
export function startWorker() {
  return new Worker(policy ? policy.createScriptURL(WORKER) : WORKER, { type: "module" });
}
