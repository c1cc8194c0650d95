/**
 * Draws Markdown that is still being written. Finished blocks are never touched again; only the open one is drawn anew,
 * at most once per frame, and less often the longer it takes. An open code block only gets text appended.
 */

import { BlockSplitter } from "./blocks.js";
import { CodeView } from "./code_view.js";
import { readDefinitions } from "./markdown.js";
import { hasTime, nextSlice } from "./slices.js";
import { TextView } from "./text_view.js";

const REST_PER_WORK = 6; // after drawing for t ms the open block rests for 6 t: at most a seventh of the time
const BETWEEN_DRAWINGS_MS = 30; // a frame costs the browser more in painting than us in text
const MAX_BLOCKS = 3_000; // shown of one answer before the reader asks for the rest
const MAX_ELEMENTS = 40_000; // likewise
const MAX_LENGTH = 500_000; // characters, likewise

/** What a view holds before the first text. */
function fresh() {
  return {
    _text: "", // all that was given
    _isWhole: false, // no more will come
    _splitter: new BlockSplitter(),
    _drawn: /** @type {(CodeView | TextView)[]} */ ([]),
    _pending: /** @type {string[]} */ ([]),
    _env: {}, // link targets
    _first: 0, // the first block that is to be drawn
    _restUntil: 0,
    _numAllowed: MAX_BLOCKS,
    _lengthAllowed: MAX_LENGTH,
    _allowance: { left: MAX_ELEMENTS },
    _numElementsAllowed: MAX_ELEMENTS,
    _rooms: /** @type {number[]} */ ([]), // of the blocks: what the reader asked to see of an earlier drawing of this text
    _lengthDrawn: 0, // characters of the blocks that are closed and drawn
  };
}

export class MarkdownView {
  /** @param {HTMLElement} root */
  constructor(root) {
    this._root = root;
    this._onDrawn = () => {};
    this._frame = 0;
    this._isEnded = false; // nothing more is to be drawn
    this._nextDrawing = 0;
    this._isWaiting = false; // for the next slice
    const start = fresh();
    this._text = start._text;
    this._isWhole = start._isWhole;
    this._splitter = start._splitter;
    this._drawn = start._drawn;
    this._pending = start._pending;
    this._env = start._env;
    this._first = start._first;
    this._restUntil = start._restUntil;
    this._numAllowed = start._numAllowed;
    this._lengthAllowed = start._lengthAllowed;
    this._allowance = start._allowance;
    this._numElementsAllowed = start._numElementsAllowed;
    this._rooms = start._rooms;
    this._lengthDrawn = start._lengthDrawn;
  }

  /** Called after each drawing. @param {() => void} listener */
  onDrawn(listener) {
    this._onDrawn = listener;
  }

  /** @param {string} text */
  append(text) {
    this._text += text;
    this._pending.push(text);
    this._frame ||= requestAnimationFrame(() => this._draw());
  }

  /**
   * Show this text. What is drawn of it stays, and what the reader asked to see of it holds, whether or not it has grown.
   * @param {string} text @param {boolean} isWhole  no more will come
   */
  set(text, isWhole) {
    this.destroy();
    this._isEnded = false;
    const isSame = this._text !== "" && text.startsWith(this._text);
    const isMore = text.length > this._text.length;
    if (!isSame || (this._isWhole && (isMore || !isWhole))) this._clear(isSame);
    if (text.length > this._text.length) this._pending.push(text.slice(this._text.length));
    this._text = text;
    if (isWhole) this.finish();
    else {
      this._nextDrawing = 0;
      this._draw();
    }
  }

  /** No more text will come. */
  finish() {
    this.destroy();
    this._isEnded = false;
    this._isWhole = true;
    this._take();
    this._splitter.finish();
    this._restUntil = 0;
    const texts = this._splitter.blocks.filter((block) => block.kind === "text").map((block) => block.source);
    if (readDefinitions(texts, this._env)) {
      this._first = 0;
      for (const drawn of this._drawn) if (drawn instanceof TextView) drawn.isDone = false;
    }
    this._update(false);
  }

  destroy() {
    cancelAnimationFrame(this._frame);
    this._frame = 0;
    this._isEnded = true;
  }

  /** @param {boolean} isSame  the same text will be drawn again, or more of it */
  _clear(isSame) {
    const { _numAllowed, _lengthAllowed, _numElementsAllowed } = this;
    const _rooms = this._drawn.map(({ room }, i) => Math.max(room, this._rooms[i] ?? 0));
    Object.assign(this, fresh());
    if (isSame) Object.assign(this, { _numAllowed, _lengthAllowed, _numElementsAllowed, _rooms, _allowance: { left: _numElementsAllowed } });
    this._root.replaceChildren();
  }

  _take() {
    if (!this._pending.length) return;
    const first = this._splitter.push(this._pending.join(""));
    this._pending = [];
    this._first = Math.min(this._first, first);
  }

  _draw() {
    const start = performance.now();
    this._frame = start < this._nextDrawing ? requestAnimationFrame(() => this._draw()) : 0;
    if (this._frame) return;
    this._nextDrawing = start + BETWEEN_DRAWINGS_MS;
    this._take();
    const isResting = start < this._restUntil;
    this._update(isResting);
    if (isResting) this._frame = requestAnimationFrame(() => this._draw());
    else {
      const end = performance.now();
      this._restUntil = end - start > 4 ? end + (end - start) * REST_PER_WORK : 0;
    }
    this._onDrawn();
  }

  /** Draw from the first block that has changed, in slices. @param {boolean} isResting */
  _update(isResting) {
    const { blocks } = this._splitter;
    for (let i = this._first; i < blocks.length; i++) {
      if (i >= this._drawn.length && !this._hasRoom()) return this._offerRest();
      if (i > this._first && !hasTime()) {
        this._first = i;
        if (this._isWaiting) return;
        this._isWaiting = true;
        return void nextSlice().then(() => {
          this._isWaiting = false;
          if (this._isEnded) return;
          this._update(false);
          this._onDrawn();
        });
      }
      this._drawBlock(blocks[i], i, isResting);
    }
    if (!isResting) this._first = Math.max(0, blocks.length - 1);
  }

  /** @param {import("./blocks.js").Block} block @param {number} i @param {boolean} isResting */
  _drawBlock(block, i, isResting) {
    const isFormula = block.kind === "code" && block.info === "math";
    let drawn = this._drawn[i];
    if (!drawn) {
      drawn = this._drawn[i] =
        block.kind === "code" && !isFormula ? new CodeView(block.info, this._rooms[i]) : new TextView(this._env, this._allowance, this._rooms[i]);
      this._root.append(drawn.element);
      if (i) this._lengthDrawn += this._splitter.blocks[i - 1].source.length;
    }
    if (drawn instanceof CodeView) {
      if (drawn.isDone) return;
      if (block.source.length > drawn.length) drawn.append(block.source.slice(drawn.length));
      if (block.isClosed) void drawn.finish();
      else drawn.setTail(this._splitter.codeTail());
    } else if (!drawn.isDone && !(isResting && !block.isClosed && drawn.shown)) {
      drawn.draw(isFormula ? `\`\`\`math\n${block.source}\`\`\`` : block.source, block.isClosed, this._onDrawn);
    }
  }

  _hasRoom() {
    return this._drawn.length < this._numAllowed && this._lengthDrawn < this._lengthAllowed && this._allowance.left > 0;
  }

  /** The answer is very long: what comes is shown when the reader asks for it. */
  _offerRest() {
    this._first = this._drawn.length;
    if (this._root.lastElementChild?.classList.contains("rest")) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet rest";
    button.textContent = "Show the rest of the answer";
    button.addEventListener("click", () => {
      button.remove();
      this._numAllowed = this._drawn.length + MAX_BLOCKS;
      this._lengthAllowed = this._lengthDrawn + MAX_LENGTH;
      this._numElementsAllowed += MAX_ELEMENTS - Math.max(0, this._allowance.left);
      this._allowance.left = MAX_ELEMENTS;
      this._update(false);
    });
    this._root.append(button);
  }
}
