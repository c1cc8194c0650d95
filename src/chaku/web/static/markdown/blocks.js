/**
 * Cuts Markdown that is still arriving into blocks that will not change any more, and the one that may.
 *
 * A block is cut where CommonMark surely ends one: a blank line followed by text that belongs to no list, and a fence
 * at the margin. In doubt nothing is cut: a block that is too long costs time, one that is too short changes the text.
 */

import { ENVIRONMENT } from "./math_syntax.js";

/**
 * @typedef {object} Block
 * @property {"text" | "code"} kind
 * @property {string} source  the Markdown of a text block; the code of a code block, without its fences
 * @property {string} info  what follows the opening fence
 * @property {boolean} isClosed  nothing will be added
 */

const FENCE = /^( {0,3})(`{3,}(?=[^`]*$)|~{3,})(.*)$/;
const INNER_FENCE = /^\s*(`{3,}(?=[^`]*$)|~{3,})/;
const LIST = /^ {0,3}([-*+]|\d{1,9}[.)])(\s|$)/;
const MAYBE_LIST = /^( {0,3}([-*+]|\d{1,9}[.)]?)?|\s*)$/;

export class BlockSplitter {
  constructor() {
    /** @type {Block[]} */
    this.blocks = [];
    /** @type {Block | null} */
    this._open = null;
    this._tail = ""; // the line that has not ended
    this._settled = ""; // the open text block without the tail
    this._fence = ""; // the marker that would close the open code block
    this._fenceIndent = 0;
    this._innerFence = "";
    this._isList = false;
    this._afterBlank = false;
    this._math = ""; // the mark that closes displayed TeX
  }

  /**
   * Take in more text. Returns the index of the first block that is new or different.
   * @param {string} text
   */
  push(text) {
    const first = Math.max(0, this.blocks.length - 1);
    if (text.includes("\r")) text = text.replace(/\r\n?/g, "\n");
    let from = 0;
    for (let end = text.indexOf("\n"); end >= 0; end = text.indexOf("\n", from)) {
      this._line(this._tail + text.slice(from, end));
      this._tail = "";
      from = end + 1;
    }
    this._tail += text.slice(from);
    this._show();
    return first;
  }

  /** No more text will come: the last block is closed. */
  finish() {
    const first = Math.max(0, this.blocks.length - 1);
    if (this._tail) this._line(this._tail);
    this._tail = "";
    this._show();
    this._close();
    return first;
  }

  /** @param {string} line  a whole line, without its end */
  _line(line) {
    if (this._open?.kind === "code") return this._codeLine(line);
    if (this._math || this._innerFence) return this._heldLine(line);
    const fence = FENCE.exec(line);
    if (fence && (!this._isList || fence[1].length < 2)) return this._openCode(fence);
    if (line.trim() === "") {
      this._afterBlank = true;
      if (this._open) this._settled += line + "\n";
      return;
    }
    if (this._afterBlank && this._startsNew(line)) this._close();
    this._afterBlank = false;
    if (!this._settled) this._isList = LIST.test(line);
    const inner = INNER_FENCE.exec(line);
    if (inner) this._innerFence = inner[1];
    const math = /^\s*(\$\$|\\\[)/.exec(line) ?? ENVIRONMENT.exec(line);
    if (math && !inner) {
      const closing = math[1] === "$$" ? "$$" : math[1] === "\\[" ? "\\]" : `\\end{${math[1]}}`;
      if (!line.slice(math[0].length).includes(closing)) this._math = closing;
    }
    this._openText();
    this._settled += line + "\n";
  }

  /** A line inside displayed TeX, or inside a fence that stands in a list. @param {string} line */
  _heldLine(line) {
    this._settled += line + "\n";
    this._afterBlank = false;
    if (this._innerFence) {
      const text = line.trim();
      if (text.startsWith(this._innerFence) && text === text[0].repeat(text.length)) this._innerFence = "";
    } else if (line.includes(this._math)) this._math = "";
  }

  /** @param {string} line */
  _codeLine(line) {
    const block = /** @type {Block} */ (this._open);
    const text = line.trimEnd();
    if (/^ {0,3}[`~]/.test(text)) {
      const marks = text.trimStart();
      if (marks.startsWith(this._fence) && marks === marks[0].repeat(marks.length)) return this._close();
    }
    block.source += this._outdent(line) + "\n";
  }

  /** A fence that stands indented takes as much from its lines. @param {string} line */
  _outdent(line) {
    let n = 0;
    while (n < this._fenceIndent && line[n] === " ") n++;
    return line.slice(n);
  }

  /** @param {RegExpExecArray} fence */
  _openCode(fence) {
    this._close();
    this._fence = fence[2];
    this._fenceIndent = fence[1].length;
    this._begin("code", fence[3].trim());
  }

  _openText() {
    if (!this._open) this._begin("text", "");
  }

  /** @param {Block["kind"]} kind @param {string} info */
  _begin(kind, info) {
    this._open = { kind, source: "", info, isClosed: false };
    this.blocks.push(this._open);
  }

  _close() {
    if (this._open) {
      if (this._open.kind === "text") this._open.source = this._settled;
      this._open.isClosed = true;
    }
    this._open = null;
    this._settled = "";
    this._isList = false;
    this._afterBlank = false;
    this._math = "";
    this._innerFence = "";
    this._fence = "";
  }

  /** Whether a line after a blank one can belong to no earlier block. @param {string} line */
  _startsNew(line) {
    if (/^( {4}| {0,3}\t)/.test(line)) return false; // indented code, or more of a list
    return !this._isList || (/^ {0,1}\S/.test(line) && !LIST.test(line));
  }

  /** Let the open block show the line that has not ended, as far as it is sure what it is. */
  _show() {
    const tail = this._tail;
    if (this._open?.kind === "code") return; // codeTail() tells what of the last line can be shown
    if (tail.trim() && this._afterBlank && !this._math && !this._innerFence) {
      const isSure = !this._isList || !MAYBE_LIST.test(tail);
      if (isSure && this._startsNew(tail)) this._close();
    }
    if (tail.trim() && !/^ {0,3}(`{1,2}|~{1,2})?$/.test(tail)) this._openText();
    if (this._open) this._open.source = this._settled + tail;
  }

  /** The unfinished last line of the open code block, unless it may become the closing fence. */
  codeTail() {
    if (this._open?.kind !== "code") return "";
    const marks = this._tail.trim();
    const mark = this._fence[0];
    return marks === mark.repeat(marks.length) ? "" : this._outdent(this._tail);
  }
}

/**
 * The blocks of a text that is all there.
 * @param {string} text
 */
export function splitBlocks(text) {
  const splitter = new BlockSplitter();
  splitter.push(text);
  splitter.finish();
  return splitter.blocks;
}

/**
 * The language that the line after the fence names, "" if none.
 * @param {string} info
 */
export function languageOf(info) {
  return (info.trim().split(/[\s{,:]/)[0] ?? "").toLowerCase().slice(0, 30);
}
