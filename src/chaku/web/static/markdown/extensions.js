/**
 * What models write beyond CommonMark and GFM's tables: line breaks in cells, task lists, footnotes, emphasis beside
 * Chinese, Japanese and Korean text. Each rule reads its text once: no input makes it quadratic.
 */

/** @import {MarkdownIt, StateBlock, StateCore, StateInline} from "../vendor/markdown-it.js" */

const EAST_ASIAN = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Hangul}\p{Script=Bopomofo}]/u;
const NOTE_DEFINITION = /^\[\^([^\]\s[]{1,80})\]:[ \t]*/;
const NOTE_MARK = /\[\^([^\]\s[]{1,80})\]/y;
const NOTE_INDENT = 4; // spaces before the further paragraphs of a footnote

/** @param {MarkdownIt} md */
export function addExtensions(md) {
  md.inline.ruler.before("escape", "line_break", lineBreak);
  md.inline.ruler.before("link", "note_mark", noteMark);
  md.block.ruler.before("reference", "note", note, { alt: ["paragraph", "reference"] });
  md.core.ruler.after("block", "tasks", tasks);
  md.inline.State = withEastAsianEmphasis(md.inline.State);
  const escape = md.utils.escapeHtml;
  md.renderer.rules.note_mark = (tokens, i) => `<sup data-note="${escape(tokens[i].content)}">${escape(tokens[i].content)}</sup>`;
}

/** <br> is the one tag that models write into cells of tables. @param {StateInline} state @param {boolean} silent */
function lineBreak(state, silent) {
  const found = state.src[state.pos] === "<" && /^<br ?\/?>/i.exec(state.src.slice(state.pos, state.pos + 6));
  if (!found) return false;
  if (!silent) state.push("hardbreak", "br", 0);
  state.pos += found[0].length;
  return true;
}

/** "- [x] done" shows a box instead of its bullet. @param {StateCore} state */
function tasks({ tokens }) {
  tokens.forEach((token, i) => {
    if (token.type !== "inline" || tokens[i - 2]?.type !== "list_item_open") return;
    const box = /^\[([ xX])\]\s+/.exec(token.content);
    if (!box) return;
    tokens[i - 2].attrSet("class", box[1] === " " ? "task" : "task done");
    token.content = token.content.slice(box[0].length);
  });
}

let isInNote = false; // a footnote has no footnotes: one in another could go as deep as the text is long

/**
 * "[^label]: text", with lines up to the next blank one and indented paragraphs after it.
 * @param {StateBlock} state @param {number} startLine @param {number} endLine @param {boolean} silent
 */
function note(state, startLine, endLine, silent) {
  const line = (/** @type {number} */ i) => state.src.slice(state.bMarks[i] + state.tShift[i], state.eMarks[i]);
  const first = line(startLine);
  const definition = first.startsWith("[^") && NOTE_DEFINITION.exec(first);
  if (!definition || isInNote) return false;
  if (silent) return true;
  const lines = [first.slice(definition[0].length)];
  let end = startLine + 1;
  for (let isAfterBlank = false; end < endLine; end++) {
    const text = line(end);
    const isIndented = state.sCount[end] - state.blkIndent >= NOTE_INDENT;
    if (text && (isAfterBlank ? !isIndented : NOTE_DEFINITION.test(text) || state.sCount[end] < state.blkIndent)) break;
    isAfterBlank = !text;
    const isDeeper = state.sCount[end] - state.blkIndent > NOTE_INDENT; // code, or a list in a list
    lines.push(isDeeper ? " ".repeat(Math.min(40, state.sCount[end] - state.blkIndent - NOTE_INDENT)) + text : text);
  }
  while (lines.length > 1 && !lines.at(-1)) {
    lines.pop();
    end--;
  }
  const label = definition[1];
  (state.env.notes ??= {})[`:${label}`] = true;
  const open = state.push("note_open", "div", 1);
  open.attrSet("class", "note");
  open.attrSet("data-note", label);
  isInNote = true;
  try {
    state.md.block.parse(lines.join("\n"), state.md, state.env, state.tokens);
  } finally {
    isInNote = false;
  }
  state.push("note_close", "div", -1);
  state.line = end;
  return true;
}

/** "[^label]" where there is such a footnote; anywhere else it is text. @param {StateInline} state @param {boolean} silent */
function noteMark(state, silent) {
  if (!state.src.startsWith("[^", state.pos) || !state.env.notes) return false;
  NOTE_MARK.lastIndex = state.pos;
  const found = NOTE_MARK.exec(state.src);
  if (!found || !state.env.notes[`:${found[1]}`]) return false;
  if (!silent) state.push("note_mark", "sup", 0).content = found[1];
  state.pos += found[0].length;
  return true;
}

/**
 * CommonMark asks for a space between a letter and emphasis that begins or ends with a mark, as in 彼は**「はい」**と. These
 * languages write none, so a letter of theirs counts as a space there: https://github.com/commonmark/commonmark-spec/issues/650
 * @param {typeof StateInline} Base
 */
function withEastAsianEmphasis(Base) {
  return class extends Base {
    /** @param {number} start @param {boolean} canSplitWord */
    scanDelims(start, canSplitWord) {
      const scanned = super.scanDelims(start, canSplitWord);
      if (!canSplitWord) return scanned;
      const end = start + scanned.length;
      const before = this.src.slice(Math.max(0, start - 2), start);
      const after = this.src.slice(end, Math.min(end + 2, this.posMax));
      if (EAST_ASIAN.test([...before].at(-1) ?? "") && /^\S/.test(after)) scanned.can_open = true;
      if (EAST_ASIAN.test([...after][0] ?? "") && /\S$/.test(before)) scanned.can_close = true;
      return scanned;
    }
  };
}
