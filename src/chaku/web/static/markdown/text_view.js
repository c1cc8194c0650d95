/** A block of text: its Markdown as elements, put on the page in slices. Only its beginning is shown while it is very long. */

/** @import {Piece} from "./markdown.js" */
import { inBackground } from "./background.js";
import { CodeView } from "./code_view.js";
import { piecesOf } from "./markdown.js";
import { drawMath } from "./math.js";
import { fragmentOf } from "./sanitise.js";
import { hasTime, nextSlice } from "./slices.js";

const READ_AT_ONCE = 4_000; // characters; longer Markdown is read in the background
const PREVIEW = 2_000; // characters of it that are shown as they are meanwhile
const FIRST_ELEMENTS = 8_000;
const MORE_ELEMENTS = 8_000;
const PLAIN = 50_000; // characters shown of what can't be read

/** @typedef {{pieces: Piece[], next: number, numElements: number, version: number}} Drawing  next: the first piece that is not shown */

export class TextView {
  /**
   * @param {object} env  link targets, shared by the blocks of one text
   * @param {{left: number}} allowance  of elements, shared likewise
   * @param {number} [room]  elements that the reader has asked to see
   */
  constructor(env, allowance, room = 0) {
    this.element = document.createElement("div");
    this.element.className = "prose";
    this.element.dir = "auto";
    this.element.addEventListener("click", goToNote);
    this.element.addEventListener("keydown", goToNote);
    this.shown = 0; // characters that were given to draw
    this.isDone = false;
    this._env = env;
    this._allowance = allowance;
    this._version = 0;
    this.room = room; // grows when the reader asks for more: each drawing reads it as it goes, whenever it began
    this._numCounted = 0; // elements that were taken off the allowance
    /** @type {string | null} */
    this._next = null;
    this._isReading = false;
    this.element.removeAttribute("aria-busy");
  }

  /** @param {string} source @param {boolean} isClosed @param {() => void} onDrawn  called for what is drawn later */
  draw(source, isClosed, onDrawn) {
    this.shown = source.length;
    this.isDone = isClosed;
    if (source.length > READ_AT_ONCE) {
      this._next = source;
      if (!this.element.hasChildNodes()) this.element.textContent = source.slice(0, PREVIEW);
      if (!this._isReading) void this._read(onDrawn);
      return;
    }
    this._next = null;
    this._place(piecesOf(source, this._env), () => {});
  }

  /** Read in the background until the newest text is drawn. @param {() => void} onDrawn */
  async _read(onDrawn) {
    this._isReading = true;
    this.element.setAttribute("aria-busy", "true");
    while (this._next !== null) {
      const source = this._next;
      this._next = null;
      const read = await inBackground({ kind: "markdown", source, env: this._env });
      if (read) {
        addTargets(this._env, read.env);
        await new Promise((resolve) => this._place(read.pieces, () => resolve(undefined)));
      } else this._showPlain(source);
      onDrawn();
    }
    this._isReading = false;
    this.element.removeAttribute("aria-busy");
  }

  /** @param {string} source */
  _showPlain(source) {
    this._version++;
    const rest = source.length - PLAIN;
    const note = `This text is too complex to format; it is shown as written${rest > 0 ? ", up to here" : ""}.`;
    const hint = document.createElement("p");
    hint.className = "hint";
    hint.textContent = note;
    const plain = document.createElement("div");
    plain.className = "plain";
    plain.textContent = source.slice(0, PLAIN);
    this.element.replaceChildren(plain, hint);
  }

  /** Build the elements apart, and show them when the first ones are whole. @param {Piece[]} pieces @param {() => void} onDone */
  _place(pieces, onDone) {
    const drawing = { pieces, next: 0, numElements: 0, version: ++this._version };
    const root = document.createElement("div");
    const free = Math.min(FIRST_ELEMENTS, this._allowance.left);
    this._add(root, drawing, free, () => {
      if (drawing.version === this._version) {
        this.element.replaceChildren(...root.childNodes);
        this._count(drawing);
        this._offerRest(drawing);
      }
      onDone();
    });
  }

  /**
   * Add pieces until the reader has what they asked for, and at least `free` elements. A newer drawing ends this one.
   * @param {HTMLElement} root @param {Drawing} drawing @param {number} free @param {() => void} onDone
   */
  _add(root, drawing, free, onDone) {
    const { pieces, version } = drawing;
    for (let isFirst = true; drawing.next < pieces.length; isFirst = false) {
      if (drawing.next > 0 && drawing.numElements >= Math.max(this.room, free)) break;
      if (!isFirst && !hasTime()) {
        return void nextSlice().then(() => (version === this._version ? this._add(root, drawing, free, onDone) : onDone()));
      }
      const piece = pieces[drawing.next++];
      addPiece(root, piece);
      drawing.numElements += piece.elements;
    }
    onDone();
  }

  /** A block that changes no more takes what it shows off the allowance, once. @param {Drawing} drawing */
  _count({ numElements }) {
    if (!this.isDone) return;
    this._allowance.left -= numElements - this._numCounted;
    this._numCounted = numElements;
  }

  /** @param {Drawing} drawing */
  _offerRest(drawing) {
    if (drawing.next >= drawing.pieces.length) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet rest";
    button.textContent = "Show the rest";
    button.addEventListener("click", () => {
      button.remove();
      this.room = Math.max(this.room, drawing.numElements) + MORE_ELEMENTS;
      if (drawing.version !== this._version) return; // a newer drawing is under way, and finds the room it now has
      this._add(this.element, drawing, 0, () => drawing.version === this._version && this._offerRest(drawing));
    });
    this.element.append(button);
  }
}

/**
 * Take over the link targets and footnotes that a block defines; another block may have come in the meantime.
 * @param {Record<string, any>} env @param {Record<string, any>} found
 */
function addTargets(env, found) {
  for (const [kind, targets] of Object.entries(found)) env[kind] = { ...env[kind], ...targets };
}

/**
 * The new elements of a piece, and the element of the pieces before it to which they belong.
 * @param {HTMLElement} root @param {Piece} piece
 */
export function openPiece(root, piece) {
  /** @type {ParentNode} */
  let from = fragmentOf(piece.html);
  /** @type {ParentNode} */
  let to = root;
  for (let i = 0; i < piece.depth && from.firstElementChild && to.lastElementChild; i++) {
    from = from.firstElementChild;
    to = to.lastElementChild;
  }
  return { from, to };
}

/** @param {HTMLElement} root @param {Piece} piece */
function addPiece(root, piece) {
  const { from, to } = openPiece(root, piece);
  for (const pre of from.querySelectorAll("pre[data-info]")) {
    const code = new CodeView(/** @type {HTMLElement} */ (pre).dataset.info ?? "");
    code.append(pre.textContent ?? "");
    void code.finish();
    pre.replaceWith(code.element);
  }
  for (const frame of from.querySelectorAll(".table-frame")) {
    frame.setAttribute("tabindex", "0");
    frame.setAttribute("role", "region");
    frame.setAttribute("aria-label", "Table");
  }
  for (const mark of from.querySelectorAll("sup[data-note]")) {
    mark.setAttribute("role", "link");
    mark.setAttribute("tabindex", "0");
    mark.setAttribute("aria-label", `Footnote ${mark.textContent}`);
  }
  drawMath(from);
  to.append(...from.childNodes);
}

/** The mark of a footnote leads to it. @param {MouseEvent | KeyboardEvent} event */
function goToNote(event) {
  const mark = /** @type {HTMLElement} */ (event.target).closest("sup[data-note]");
  if (!mark || ("key" in event && event.key !== "Enter")) return;
  const notes = /** @type {HTMLElement[]} */ ([...(mark.closest(".answer-body")?.querySelectorAll(".note") ?? [])]);
  const note = notes.find((other) => other.dataset.note === /** @type {HTMLElement} */ (mark).dataset.note);
  if (!note) return;
  note.tabIndex = -1;
  note.focus({ preventScroll: true });
  note.scrollIntoView({ block: "nearest" });
}
