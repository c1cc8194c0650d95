/** A code block: its bar, its lines, its colours. Only its beginning is shown while it is very long. */

import { copyButton, copyText } from "../ui/clipboard.js";
import { withVisibleControls } from "../ui/format.js";
import { inBackground } from "./background.js";
import { languageOf } from "./blocks.js";
import { hasTime, nextSlice } from "./slices.js";

const CHUNK = 4_000; // characters that are laid out together
const FIRST_SHOWN = 60_000; // characters

export class CodeView {
  /** @param {string} info  what follows the opening fence @param {number} [room]  characters that the reader has asked to see */
  constructor(info, room = 0) {
    this._info = info;
    this._source = "";
    this._shown = 0; // characters of the source that are on the page
    this.room = Math.max(FIRST_SHOWN, room);
    this.isDone = false;
    this._code = document.createElement("code");
    this._tail = document.createTextNode(""); // a line that has not ended
    this._chunk = newChunk();
    this._chunkLength = 0;
    this._chunk.append(this._tail);
    this._code.append(this._chunk);
    this.element = frameOf(this._code, info, () => this._source.replace(/\n$/, ""));
    this._more = document.createElement("button");
    this._more.type = "button";
    this._more.className = "quiet rest";
    this._more.addEventListener("click", () => this._showRest());
  }

  get length() {
    return this._source.length;
  }

  /** @param {string} lines  whole lines */
  append(lines) {
    this._source += lines;
    this._fill();
  }

  /** Show a line that has not ended. @param {string} line */
  setTail(line) {
    const text = this._shown < this._source.length ? "" : withVisibleControls(line);
    if (this._tail.data !== text) this._tail.data = text;
  }

  /** No more will come: it can be coloured. */
  async finish() {
    this.isDone = true;
    this.setTail("");
    this._code.normalize();
    this.element.setAttribute("aria-busy", "true"); // until it has its colours
    const spans = await inBackground({ kind: "code", code: this._source, info: this._info });
    if (spans) await this._colour(spans);
    this.element.removeAttribute("aria-busy");
  }

  /** Bring the lines onto the page that are not there yet, as far as they may be shown. */
  _fill() {
    while (this._shown < this._source.length) {
      if (this._shown >= this.room) return this._offerRest();
      let end = Math.min(this._shown + CHUNK, this._source.length);
      if (end < this._source.length) end = this._source.indexOf("\n", end) + 1 || this._source.length;
      if (end > this.room) end = Math.max(this.room, this._source.lastIndexOf("\n", this.room) + 1);
      const text = this._source.slice(this._shown, end);
      this._chunk.insertBefore(document.createTextNode(withVisibleControls(text)), this._tail);
      this._shown = end;
      this._chunkLength += text.length;
      if (this._chunkLength >= CHUNK && text.endsWith("\n")) this._nextChunk();
    }
    this._more.remove();
  }

  _nextChunk() {
    this._chunk = newChunk(); // the browser lays out only what stands in the last one
    this._chunk.append(this._tail);
    this._code.append(this._chunk);
    this._chunkLength = 0;
  }

  _offerRest() {
    this._more.textContent = `Show the rest (${(this._source.length - this._shown).toLocaleString("en")} characters)`;
    if (!this._more.isConnected) this.element.append(this._more);
  }

  async _showRest() {
    while (this._shown < this._source.length) {
      this.room = this._shown + FIRST_SHOWN;
      this._fill();
      await nextSlice();
    }
  }

  /** Replace the text by the same in colours. @param {string[]} spans  text, classes, text, classes, … */
  async _colour(spans) {
    let chunk = newChunk();
    let length = 0;
    const coloured = [chunk];
    for (let i = 0; i < spans.length && (length < this.room); i += 2) {
      if (i % 400 === 0 && !hasTime()) await nextSlice();
      const text = spans[i];
      chunk.append(spans[i + 1] ? spanOf(text, spans[i + 1]) : text);
      length += text.length;
      if (chunk.childNodes.length > 300 && text.includes("\n") && !spans[i + 1]) {
        chunk = splitChunk(chunk, text);
        coloured.push(chunk);
      }
    }
    if (this._shown === this._source.length && length >= this._shown) this._code.replaceChildren(...coloured);
  }
}

/** Start the next chunk behind the last line end of a chunk's last text. @param {HTMLElement} chunk @param {string} text */
function splitChunk(chunk, text) {
  const cut = text.lastIndexOf("\n") + 1;
  /** @type {ChildNode} */ (chunk.lastChild).replaceWith(text.slice(0, cut));
  const next = newChunk();
  if (cut < text.length) next.append(text.slice(cut));
  return next;
}

function newChunk() {
  const chunk = document.createElement("span");
  chunk.className = "lines";
  return chunk;
}

/** @param {string} text @param {string} classes */
export function spanOf(text, classes) {
  const span = document.createElement("span");
  span.className = classes;
  span.textContent = text;
  return span;
}

/** @param {HTMLElement} code @param {string} info @param {() => string} source */
function frameOf(code, info, source) {
  const element = document.createElement("figure");
  element.className = "code";
  element.dir = "ltr";
  const bar = document.createElement("figcaption");
  const name = document.createElement("span");
  name.textContent = withVisibleControls(languageOf(info)) || "text";
  const wrap = document.createElement("button");
  wrap.type = "button";
  wrap.textContent = "Wrap";
  wrap.setAttribute("aria-pressed", "false");
  wrap.addEventListener("click", () => {
    wrap.setAttribute("aria-pressed", String(element.classList.toggle("wrapped")));
  });
  bar.append(name, wrap, copyButton("Copy", () => copyText(source())));
  const pre = document.createElement("pre");
  pre.tabIndex = 0;
  pre.setAttribute("role", "region");
  pre.setAttribute("aria-label", `Code, ${name.textContent}`);
  pre.append(code);
  element.append(bar, pre);
  return element;
}
