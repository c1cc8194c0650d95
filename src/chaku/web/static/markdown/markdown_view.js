/**
 * Draws Markdown that is still being written. Finished blocks are never touched again; only the open one is drawn anew,
 * at most once per frame, and less often the longer it takes. An open code block only gets text appended.
 */

import { BlockSplitter } from "./blocks.js";
import { copyButton, copyText } from "../ui/clipboard.js";
import { withVisibleControls } from "../ui/format.js";
import { highlight, languageOf } from "./highlight.js";
import { definesLinks, renderMarkdown } from "./markdown.js";
import { drawMath } from "./math.js";

const REST_PER_WORK = 6; // after drawing for t ms the open block rests for 6 t: at most a seventh of the time
const BETWEEN_DRAWINGS_MS = 30; // a frame costs the browser more in painting than us in text
const CHUNK = 4_000; // characters of an open code block that are laid out together

/**
 * @typedef {object} Drawn
 * @property {HTMLElement} element
 * @property {HTMLElement | null} code
 * @property {Text | null} text  the last line of open code
 * @property {number} shown  characters of the block that are drawn
 * @property {number} chunkShown  of these, in the last chunk
 * @property {boolean} isDone
 */

/** What a view holds before the first text. */
function fresh() {
  return {
    length: 0,
    _splitter: new BlockSplitter(),
    _drawn: /** @type {Drawn[]} */ ([]),
    _pending: /** @type {string[]} */ ([]),
    _env: {}, // link targets
    _first: 0, // the first block that is to be drawn
    _restUntil: 0,
  };
}

export class MarkdownView {
  /** @param {HTMLElement} root */
  constructor(root) {
    this._root = root;
    this._onDrawn = () => {};
    this._frame = 0;
    const start = fresh();
    this.length = start.length; // characters taken in
    this._splitter = start._splitter;
    this._drawn = start._drawn;
    this._pending = start._pending;
    this._env = start._env;
    this._first = start._first;
    this._restUntil = start._restUntil;
    this._nextDrawing = 0;
  }

  /** Called after each drawing. @param {() => void} listener */
  onDrawn(listener) {
    this._onDrawn = listener;
  }

  /** @param {string} text */
  append(text) {
    this.length += text.length;
    this._pending.push(text);
    this._frame ||= requestAnimationFrame(() => this._draw());
  }

  /** Everything anew. @param {string} text @param {boolean} isWhole  no more will come */
  set(text, isWhole) {
    this.destroy();
    this._clear();
    this._pending = [text];
    this.length = text.length;
    if (isWhole) this.finish();
    else {
      this._nextDrawing = 0;
      this._draw();
    }
  }

  /** No more text will come. */
  finish() {
    this.destroy();
    this._take();
    this._splitter.finish();
    this._restUntil = 0;
    const { blocks } = this._splitter;
    const isCyclic = blocks.some((block) => block.kind === "text" && definesLinks(block.source));
    this._update(isCyclic ? 0 : this._first, isCyclic);
  }

  destroy() {
    cancelAnimationFrame(this._frame);
    this._frame = 0;
  }

  _clear() {
    Object.assign(this, fresh());
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
    this._update(this._first, false, isResting);
    if (isResting) this._frame = requestAnimationFrame(() => this._draw());
    else {
      const end = performance.now();
      this._restUntil = end - start > 4 ? end + (end - start) * REST_PER_WORK : 0;
    }
    this._onDrawn();
  }

  /** @param {number} first @param {boolean} [isAnew] @param {boolean} [isResting] */
  _update(first, isAnew = false, isResting = false) {
    const { blocks } = this._splitter;
    for (let i = first; i < blocks.length; i++) {
      const block = blocks[i];
      const drawn = (this._drawn[i] ??= this._place(block));
      if (block.kind === "code") this._drawCode(block, drawn);
      else if (!drawn.isDone || isAnew) {
        if (isResting && !block.isClosed && drawn.shown) continue;
        const fragment = renderMarkdown(block.source, this._env);
        drawMath(fragment);
        drawn.element.replaceChildren(fragment);
        drawn.shown = block.source.length;
        drawn.isDone = block.isClosed;
      }
    }
    if (!isResting) this._first = Math.max(0, blocks.length - 1);
  }

  /** @param {import("./blocks.js").Block} block @returns {Drawn} */
  _place(block) {
    const drawn = block.kind === "code" ? codeFrame(block) : textFrame();
    this._root.append(drawn.element);
    return drawn;
  }

  /** @param {import("./blocks.js").Block} block @param {Drawn} drawn */
  _drawCode(block, drawn) {
    if (drawn.isDone) return;
    const text = /** @type {Text} */ (drawn.text);
    if (block.source.length > drawn.shown) {
      const lines = withVisibleControls(block.source.slice(drawn.shown));
      const chunk = /** @type {HTMLElement} */ (text.parentNode);
      chunk.insertBefore(document.createTextNode(lines), text);
      drawn.shown = block.source.length;
      drawn.chunkShown += lines.length;
      if (drawn.chunkShown > CHUNK) {
        const next = chunk.cloneNode(false); // the browser lays out only what stands in the last chunk
        next.appendChild(text);
        chunk.after(next);
        drawn.chunkShown = 0;
      }
    }
    const tail = block.isClosed ? "" : withVisibleControls(this._splitter.codeTail());
    if (text.data !== tail) text.data = tail;
    if (!block.isClosed) return;
    drawn.isDone = true;
    const code = /** @type {HTMLElement} */ (drawn.code);
    code.normalize();
    void highlight(code, block.source, block.info);
  }
}

/** @returns {Drawn} */
function textFrame() {
  const element = document.createElement("div");
  element.className = "prose";
  element.dir = "auto";
  return { element, code: null, text: null, shown: 0, chunkShown: 0, isDone: false };
}

/** @param {import("./blocks.js").Block} block @returns {Drawn} */
function codeFrame(block) {
  const element = document.createElement("figure");
  element.className = "code";
  element.dir = "ltr";
  const bar = document.createElement("figcaption");
  const name = document.createElement("span");
  name.textContent = withVisibleControls(languageOf(block.info)) || "text";
  const wrap = document.createElement("button");
  wrap.type = "button";
  wrap.textContent = "Wrap";
  wrap.setAttribute("aria-pressed", "false");
  wrap.addEventListener("click", () => {
    wrap.setAttribute("aria-pressed", String(element.classList.toggle("wrapped")));
  });
  bar.append(name, wrap, copyButton("Copy", () => copyText(block.source.replace(/\n$/, ""))));
  const pre = document.createElement("pre");
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", `Code, ${name.textContent}`);
  const code = document.createElement("code");
  const text = document.createTextNode("");
  const chunk = document.createElement("span");
  chunk.className = "lines";
  chunk.append(text);
  code.append(chunk);
  pre.append(code);
  element.append(bar, pre);
  return { element, code, text, shown: 0, chunkShown: 0, isDone: false };
}
