/**
 * Markdown as a model writes it, to HTML in pieces: HTML in it stays text, addresses that can do something are not links.
 * Needs no document, so that it runs in a worker too.
 */

import { withVisibleControls } from "../ui/format.js";
import { addExtensions } from "./extensions.js";
import { addMath } from "./math_syntax.js";
import MarkdownIt from "../vendor/markdown-it.js";

const LINK = /^(https?:\/\/|mailto:)/i;
const DATA_IMAGE = /^data:image\/(png|jpeg|gif|webp);base64,[a-z0-9+/=]+$/i;
const FORMULA_ELEMENTS = 16; // what a formula costs, in elements of text: its boxes are dearer to lay out
const ELEMENTS_PER_TEX = 6; // and what each of its characters adds
/** @type {Record<string, number>} */
const NOTE_ELEMENTS = { note_open: 6, note_mark: 1 }; // what a footnote and its mark cost beyond their element
const PIECE_ELEMENTS = 300; // what is put on the page in one go

const md = new MarkdownIt({ html: false, linkify: true, maxNesting: 40 });
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
md.validateLink = (/** @type {string} */ url) => LINK.test(url) || DATA_IMAGE.test(url);
addMath(md);
addExtensions(md);

const rules = md.renderer.rules;
const escape = md.utils.escapeHtml;

rules.text = (tokens, i) => escape(withVisibleControls(tokens[i].content));
rules.code_inline = (tokens, i) => `<code>${escape(withVisibleControls(tokens[i].content))}</code>`;
rules.link_open = (tokens, i, options, _env, self) => {
  tokens[i].attrSet("target", "_blank");
  tokens[i].attrSet("rel", "noopener noreferrer nofollow");
  return self.renderToken(tokens, i, options);
};
// The alignment of a cell would be an inline style, which the page's policy forbids.
for (const cell of ["th_open", "td_open"]) {
  rules[cell] = (tokens, i) => {
    const side = /text-align:\s*(left|center|right)/.exec(tokens[i].attrGet("style") ?? "")?.[1];
    return `<${tokens[i].tag}${side ? ` class="align-${side}"` : ""}>`;
  };
}
rules.table_open = () => '<div class="table-frame"><table>';
rules.table_close = () => "</table></div>";
// Code becomes a frame with its bar when it is on the page, wherever it stands.
rules.fence = (tokens, i) =>
  tokens[i].info.trim() === "math"
    ? `<p><span class="math" data-tex="${escape(tokens[i].content.trim())}" data-display="1">${escape(tokens[i].content)}</span></p>`
    : `<pre data-info="${escape(tokens[i].info.trim())}">${escape(tokens[i].content)}</pre>`;
rules.code_block = (tokens, i) => `<pre data-info="">${escape(tokens[i].content)}</pre>`;
// A picture from elsewhere would tell that place what is said here. It becomes a link that the reader may follow.
rules.image = (tokens, i) => {
  const url = tokens[i].attrGet("src") ?? "";
  const alt = escape(withVisibleControls(tokens[i].content));
  if (DATA_IMAGE.test(url)) return `<img src="${escape(url)}" alt="${alt}">`;
  if (!/^https?:\/\//i.test(url)) return `<span class="image-chip">image: ${alt}</span>`;
  const host = escape(hostOf(url));
  const why = `This page loads nothing from elsewhere. Opening the picture tells ${host} its address.`;
  return (
    `<a class="image-chip" href="${escape(url)}" target="_blank" rel="noopener noreferrer nofollow" title="${why}">` +
    `load image from ${host}${alt ? `: ${alt}` : ""}</a>`
  );
};

/** @param {string} url */
function hostOf(url) {
  try {
    return new URL(url).host;
  } catch {
    return "an address that can't be read";
  }
}

const MAX_DEFINITIONS = 16_000; // characters that are read at once

/**
 * Read what blocks of one text define for all of them, link targets and footnotes: they may be used before they are defined.
 * @param {string[]} sources
 * @param {object} env  where they are kept
 * @returns {boolean} whether there are any
 */
export function readDefinitions(sources, env) {
  const lines = sources.flatMap((source) => source.match(/^ {0,3}\[[^\]\n]+\]:\s*\S.*$/gm) ?? []);
  if (lines.length) md.parse(lines.join("\n").slice(0, MAX_DEFINITIONS), env);
  return lines.length > 0;
}

/**
 * @typedef {object} Piece  a part of a block's HTML that can be put on the page alone
 * @property {string} html  well formed: what is still open from the piece before is opened again
 * @property {number} depth  how many elements, one in another, it opens again
 * @property {number} elements  how many elements it adds, about
 */

/**
 * One block of Markdown as HTML, cut into pieces.
 * @param {string} source
 * @param {object} env  shared by the blocks of one text: link targets
 * @returns {Piece[]}
 */
export function piecesOf(source, env) {
  const tokens = md.parse(source, env).flatMap((token) => (token.type === "inline" ? (token.children ?? []) : [token]));
  const render = (/** @type {number} */ i) =>
    rules[tokens[i].type]?.(tokens, i, md.options, env, md.renderer) ?? md.renderer.renderToken(tokens, i, md.options);
  /** @type {{open: string, close: string, depth: number}[]} what stands open before the next token */
  const stack = [];
  /** @type {Piece[]} */
  const pieces = [];
  let piece = { html: "", depth: 0, elements: 0 };
  tokens.forEach((token, i) => {
    if (piece.elements >= PIECE_ELEMENTS && token.nesting >= 0) {
      piece.html += stack.map(({ close }) => close).reverse().join("");
      pieces.push(piece);
      piece = { html: stack.map(({ open }) => open).join(""), depth: stack.reduce((sum, { depth }) => sum + depth, 0), elements: 0 };
    }
    const html = render(i);
    piece.html += html;
    if (token.nesting >= 0 && !token.hidden) piece.elements += 1;
    piece.elements += NOTE_ELEMENTS[token.type] ?? 0;
    if (token.type.startsWith("math")) piece.elements += FORMULA_ELEMENTS + token.content.length * ELEMENTS_PER_TEX;
    if (token.nesting > 0) {
      const tags = [...html.matchAll(/<([a-z][a-z0-9]*)/g)].map((found) => found[1]);
      stack.push({ open: html, close: tags.reverse().map((tag) => `</${tag}>`).join(""), depth: tags.length });
    } else if (token.nesting < 0) stack.pop();
  });
  return piece.html || !pieces.length ? [...pieces, piece] : pieces;
}
