/** TeX in Markdown: $…$, $$…$$, \(…\), \[…\] and bare environments become placeholders that math.js fills. */

/** @import {MarkdownIt, StateInline, StateBlock} from "../vendor/markdown-it.js" */

const NAMES =
  "align|aligned|alignat|alignedat|gather|gathered|equation|split|array|darray|subarray|cases|dcases|rcases|drcases|" +
  "matrix|pmatrix|bmatrix|Bmatrix|vmatrix|Vmatrix|smallmatrix|CD";
/** A line that begins with an environment that KaTeX knows. */
export const ENVIRONMENT = new RegExp(`^\\s*\\\\begin\\{((?:${NAMES})\\*?)\\}`);
const ENVIRONMENT_MARK = new RegExp(`\\\\(begin|end)\\{((?:${NAMES})\\*?)\\}`, "g");

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
          : rest === "\\b"
            ? environment(state)
            : rest[0] === "$"
              ? dollars(state)
              : null;
  if (!found || !found.tex.trim()) return false;
  if (!silent) {
    const token = state.push("math", "span", 0);
    token.content = found.tex;
    token.meta = { display: rest === "$$" || rest === "\\[" || rest === "\\b" };
  }
  state.pos = found.end;
  return true;
}

/** @param {StateInline} state @param {string} open @param {string} close */
function between(state, open, close) {
  const start = state.pos + open.length;
  const end = nextPlace(state, close, start, Infinity, (from) => state.src.indexOf(close, from));
  return end < 0 || end + close.length > state.posMax ? null : { tex: state.src.slice(start, end), end: end + close.length };
}

/** What was looked for in a text, and where it was found. @type {WeakMap<object, Map<string, {from: number, found: number}>>} */
const PLACES = new WeakMap();

/**
 * The first place at or after `from` where `search` finds `mark`, -1 if none. Each stretch of a text is searched once, however
 * many marks stand open in it: that keeps unclosed formulas linear.
 * @param {object} state @param {string} mark @param {number} from @param {number} limit @param {(from: number) => number} search
 */
function nextPlace(state, mark, from, limit, search) {
  const places = PLACES.get(state) ?? new Map();
  PLACES.set(state, places);
  const key = `${mark} ${limit}`;
  const last = places.get(key);
  if (last && last.from <= from && (last.found < 0 || from <= last.found)) return last.found;
  const found = search(from);
  places.set(key, { from, found });
  return found;
}

/** Where each environment that begins in a text ends. @type {WeakMap<object, Map<number, number>>} */
const ENVIRONMENT_ENDS = new WeakMap();

/**
 * Where the environment that begins at a place ends, undefined if it does not: there may be others in it. The text is
 * searched once, however many are asked for.
 * @param {StateInline | StateBlock} state @param {number} place
 */
function environmentEnd(state, place) {
  let ends = ENVIRONMENT_ENDS.get(state);
  if (!ends) {
    ends = new Map();
    /** @type {{name: string, place: number}[]} */
    const open = [];
    for (const { 0: mark, 1: kind, 2: name, index } of state.src.matchAll(ENVIRONMENT_MARK)) {
      if (kind === "begin") open.push({ name, place: index });
      else if (open.at(-1)?.name === name) ends.set(/** @type {{place: number}} */ (open.pop()).place, index + mark.length);
    }
    ENVIRONMENT_ENDS.set(state, ends);
  }
  return ends.get(place);
}

/** @param {StateInline} state */
function environment(state) {
  const end = state.src.startsWith("\\begin{", state.pos) ? environmentEnd(state, state.pos) : undefined;
  return end === undefined || end > state.posMax ? null : { tex: state.src.slice(state.pos, end), end };
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
  if (first.startsWith("\\begin{")) return blockEnvironment(state, startLine, endLine, silent);
  const open = first.startsWith("$$") ? "$$" : first.startsWith("\\[") ? "\\[" : "";
  if (!open) return false;
  const close = open === "$$" ? "$$" : "\\]";
  const body = first.slice(open.length);
  const last = body.includes(close)
    ? startLine
    : nextPlace(state, close, startLine + 1, endLine, (from) => {
        for (let line = from; line < endLine; line++) if (lineOf(state, line).includes(close)) return line;
        return -1;
      });
  if (last < 0) return false;
  const ending = last === startLine ? body : lineOf(state, last);
  const end = ending.indexOf(close);
  if (ending.slice(end + close.length).trim()) return false; // the sentence goes on: inline
  if (silent) return true;
  const lines = last === startLine ? [] : [body];
  for (let line = startLine + 1; line < last; line++) lines.push(lineOf(state, line));
  lines.push(ending.slice(0, end));
  pushBlock(state, startLine, last, lines.join("\n").trim());
  return true;
}

/** @param {StateBlock} state @param {number} startLine @param {number} endLine @param {boolean} silent */
function blockEnvironment(state, startLine, endLine, silent) {
  const end = environmentEnd(state, state.bMarks[startLine] + state.tShift[startLine]);
  if (end === undefined || end > state.eMarks[endLine - 1]) return false;
  if (!/^[ \t]*$/.test(state.src.slice(end, state.src.indexOf("\n", end) >>> 0))) return false; // the sentence goes on: inline
  if (silent) return true;
  let last = startLine;
  while (state.eMarks[last] < end) last++;
  const lines = [];
  for (let line = startLine; line <= last; line++) lines.push(lineOf(state, line));
  pushBlock(state, startLine, last, lines.join("\n"));
  return true;
}

/** @param {StateBlock} state @param {number} first @param {number} last  lines @param {string} tex */
function pushBlock(state, first, last, tex) {
  state.line = last + 1;
  const token = state.push("math_block", "p", 0);
  token.block = true;
  token.content = tex;
  token.map = [first, state.line];
}

/** @param {StateBlock} state @param {number} line */
function lineOf(state, line) {
  return state.src.slice(state.bMarks[line] + state.tShift[line], state.eMarks[line]).trim();
}
