/** Markdown as a model writes it, to elements: HTML stays text, addresses that can do something are no links. */

import { withVisibleControls } from "../ui/format.js";
import { addMath } from "./math_syntax.js";
import { fragmentOf } from "./sanitise.js";
import MarkdownIt from "../vendor/markdown-it.js";

const LINK = /^(https?:\/\/|mailto:)/i;
const DATA_IMAGE = /^data:image\/(png|jpeg|gif|webp);base64,[a-z0-9+/=]+$/i;
const LONG_TABLE_CELLS = 2_000;

const md = new MarkdownIt({ html: false, linkify: true, maxNesting: 40 });
md.linkify.set({ fuzzyLink: false, fuzzyEmail: false, fuzzyIP: false });
md.validateLink = (/** @type {string} */ url) => LINK.test(url) || DATA_IMAGE.test(url);
addMath(md);

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

/**
 * Whether the text defines link targets, `[name]: https://…`, which may be used before they are defined.
 * @param {string} source
 */
export function definesLinks(source) {
  return /^ {0,3}\[[^\]]+\]:\s*\S/m.test(source);
}

/**
 * One block of Markdown as elements.
 * @param {string} source
 * @param {object} env  shared by the blocks of one text: link targets
 */
export function renderMarkdown(source, env) {
  const fragment = fragmentOf(md.render(source, env));
  for (const table of fragment.querySelectorAll("table")) frameTable(table);
  return fragment;
}

/** A table scrolls by itself, and a giant one shows its beginning first. @param {HTMLTableElement} table */
function frameTable(table) {
  const frame = document.createElement("div");
  frame.className = "table-frame";
  frame.tabIndex = 0;
  frame.setAttribute("role", "region");
  frame.setAttribute("aria-label", "Table");
  table.replaceWith(frame);
  frame.append(table);
  const rows = [...table.querySelectorAll("tbody tr")];
  const shown = Math.max(20, Math.floor(LONG_TABLE_CELLS / Math.max(1, rows[0]?.children.length ?? 1)));
  if (rows.length <= shown) return;
  const rest = rows.slice(shown);
  for (const row of rest) row.remove();
  const more = document.createElement("button");
  more.type = "button";
  more.className = "quiet";
  more.textContent = `Show all ${rows.length} rows`;
  more.addEventListener("click", () => {
    table.tBodies[0].append(...rest);
    more.remove();
  });
  frame.after(more);
}
