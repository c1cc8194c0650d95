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

export class TextView {
  /**
   * @param {object} env  link targets, shared by the blocks of one text
   * @param {{left: number}} allowance  of elements, shared likewise
   */
  constructor(env, allowance) {
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
    this._room = FIRST_ELEMENTS; // elements that the reader wants to see: what they asked for holds when more text comes
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
    const note = `This text is too tangled to be drawn; it is shown as it was written${rest > 0 ? ", up to here" : ""}.`;
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
    const version = ++this._version;
    const root = document.createElement("div");
    const finish = (/** @type {number} */ next) => {
      this.element.replaceChildren(...root.childNodes);
      if (this.isDone) this._allowance.left -= pieces.slice(0, next).reduce((sum, piece) => sum + piece.elements, 0);
      this._offerRest(pieces, next, version);
      onDone();
    };
    this._add(root, pieces, 0, Math.min(this._room, this._allowance.left), version, finish);
  }

  /**
   * @param {HTMLElement} root @param {Piece[]} pieces @param {number} first @param {number} room  for elements
   * @param {number} version @param {(next: number) => void} onDone
   */
  _add(root, pieces, first, room, version, onDone) {
    let i = first;
    for (; i < pieces.length && (room > 0 || i === first); i++) {
      if (i > first && !hasTime()) {
        const rest = room;
        const next = i;
        return void nextSlice().then(() => {
          if (version === this._version) this._add(root, pieces, next, rest, version, onDone);
          else onDone(pieces.length);
        });
      }
      addPiece(root, pieces[i]);
      room -= pieces[i].elements;
    }
    onDone(i);
  }

  /** @param {Piece[]} pieces @param {number} next  the first that is not shown @param {number} version */
  _offerRest(pieces, next, version) {
    if (next >= pieces.length || version !== this._version) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "quiet rest";
    button.textContent = "Show the rest";
    button.addEventListener("click", () => {
      button.remove();
      this._room += MORE_ELEMENTS;
      this._add(this.element, pieces, next, MORE_ELEMENTS, version, (after) => this._offerRest(pieces, after, version));
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
