/** TeX in Markdown: $…$, $$…$$, \(…\) and \[…\] become placeholders that math.js fills. */

/** @import {MarkdownIt, StateInline, StateBlock} from "../vendor/markdown-it.js" */

/** @param {MarkdownIt} md */
export function addMath(md) {
  md.inline.ruler.before("escape", "math", inlineMath);
  md.block.ruler.before("paragraph", "math_block", blockMath, { alt: ["paragraph", "reference", "blockquote", "list"] });
  const escape = md.utils.escapeHtml;
  md.renderer.rules.math = (tokens, i) =>
    `<span class="math" data-tex="${escape(tokens[i].content)}"${tokens[i].meta?.display ? ' data-display="1"' : ""}>` +
    `${escape(tokens[i].content)}</span>`;
  md.renderer.rules.math_block = (tokens, i) =>
    `<p><span class="math" data-tex="${escape(tokens[i].content)}" data-display="1">${escape(tokens[i].content)}</span></p>`;
}

/** @param {StateInline} state @param {boolean} silent */
function inlineMath(state, silent) {
  const { src, pos } = state;
  const rest = src.slice(pos, pos + 2);
  const found =
    rest === "$$"
      ? between(state, "$$", "$$")
      : rest === "\\("
        ? between(state, "\\(", "\\)")
        : rest === "\\["
          ? between(state, "\\[", "\\]")
          : rest[0] === "$"
            ? dollars(state)
            : null;
  if (!found || !found.tex.trim()) return false;
  if (!silent) {
    const token = state.push("math", "span", 0);
    token.content = found.tex;
    token.meta = { display: rest === "$$" || rest === "\\[" };
  }
  state.pos = found.end;
  return true;
}

/** @param {StateInline} state @param {string} open @param {string} close */
function between({ src, pos, posMax }, open, close) {
  const start = pos + open.length;
  const end = src.indexOf(close, start);
  return end < 0 || end + close.length > posMax ? null : { tex: src.slice(start, end), end: end + close.length };
}

/** One dollar is money unless it hugs its text, as in Pandoc. @param {StateInline} state */
function dollars({ src, pos, posMax }) {
  if (/[\s$]/.test(src[pos + 1] ?? " ") || /[\w$]/.test(src[pos - 1] ?? " ")) return null;
  for (let end = src.indexOf("$", pos + 1); end > 0 && end < posMax; end = src.indexOf("$", end + 1)) {
    if (src[end - 1] === "\\") continue;
    if (/\s/.test(src[end - 1]) || /[\w$]/.test(src[end + 1] ?? " ")) return null;
    return { tex: src.slice(pos + 1, end), end: end + 1 };
  }
  return null;
}

/** @param {StateBlock} state @param {number} startLine @param {number} endLine @param {boolean} silent */
function blockMath(state, startLine, endLine, silent) {
  const first = lineOf(state, startLine);
  const open = first.startsWith("$$") ? "$$" : first.startsWith("\\[") ? "\\[" : "";
  if (!open) return false;
  const close = open === "$$" ? "$$" : "\\]";
  const lines = [];
  for (let line = startLine; line < endLine; line++) {
    const text = line === startLine ? first.slice(open.length) : lineOf(state, line);
    const end = text.indexOf(close);
    if (end >= 0) {
      if (text.slice(end + close.length).trim()) return false; // the sentence goes on: inline
      if (silent) return true;
      lines.push(text.slice(0, end));
      state.line = line + 1;
      const token = state.push("math_block", "p", 0);
      token.block = true;
      token.content = lines.join("\n").trim();
      token.map = [startLine, state.line];
      return true;
    }
    lines.push(text);
  }
  return false;
}

/** @param {StateBlock} state @param {number} line */
function lineOf(state, line) {
  return state.src.slice(state.bMarks[line] + state.tShift[line], state.eMarks[line]).trim();
}
