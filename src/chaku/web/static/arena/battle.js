/** One battle as the page holds it: two anonymous sides that stream by themselves, the vote, and what it reveals. */

/** @import {Problem} from "../data/types.js" */
import { follow, get, patch, post, problemOf, remove } from "../data/api.js";
import { Observable } from "../data/observable.js";

/**
 * @typedef {"a" | "b"} SideName
 * @typedef {"a" | "b" | "tie" | "both_bad"} Choice
 * @typedef {{state: "waiting" | "answering" | "ended" | "failed", answers: string[]}} Side
 * @typedef {{contestant: string, model: string, tokens_per_s: number | null, num_tokens: number | null, num_parameters: number | null, parameters: Record<string, any>}} RevealedSide
 * @typedef {{choice: Choice, counted: boolean, reason: string | null, sides: Record<SideName, RevealedSide>, reasons: string[], undo_s: number}} Revealed
 * @typedef {{id: string, state: string, turn: number, token: string | null, prompts: string[], sides: Record<SideName, Side>, side_replaced: boolean, revealed: Revealed | null}} BattleShown
 */

export const SIDES = /** @type {const} */ (["a", "b"]);

export class Battle extends Observable {
  /** @param {BattleShown} shown */
  constructor(shown) {
    super();
    this.id = shown.id;
    this.state = shown.state;
    this.turn = shown.turn;
    this.token = shown.token;
    this.prompts = shown.prompts;
    this.sides = shown.sides;
    this.sideReplaced = shown.side_replaced;
    this._undoUntil = 0;
    this._reveal(shown.revealed);
    this.isOnline = true;
    this.numReplaced = 0;
    /** @type {Problem | null} with what was tried last */
    this.problem = null;
    /** @type {AbortController | null} */
    this._stream = null;
    this._frame = 0;
  }

  /** Draw a pair. @param {boolean} publish  the texts may be shown to others */
  static async begin(publish) {
    return new Battle(await post("/arena/battles", { consent: { keep: true, publish } }));
  }

  /** @param {string} id */
  static async open(id) {
    const battle = new Battle(await get(`/arena/battles/${encodeURIComponent(id)}`));
    if (battle.isAnswering) void battle._follow();
    return battle;
  }

  get _path() {
    return `/arena/battles/${encodeURIComponent(this.id)}`;
  }

  get isAnswering() {
    return !this.revealed && SIDES.some((side) => this.sides[side].state === "answering" || this.sides[side].state === "waiting") && this.turn > 0;
  }

  get canVote() {
    return Boolean(this.token) && !this.revealed;
  }

  /** Seconds for which the vote can still be undone, whatever this machine's clock says. */
  get undoLeftS() {
    return Math.ceil((this._undoUntil - performance.now()) / 1000);
  }

  /** @param {Revealed | null} revealed */
  _reveal(revealed) {
    this.revealed = revealed;
    this._undoUntil = performance.now() + 1000 * (revealed?.undo_s ?? 0);
  }

  /** @param {BattleShown} shown */
  _take(shown) {
    const { state, turn, token, prompts, sides } = shown;
    Object.assign(this, { state, turn, token, prompts, sides, sideReplaced: shown.side_replaced });
    this._undoUntil = 0;
    this._reveal(shown.revealed);
  }

  /** Ask both sides. @param {string} content @returns {Promise<boolean>} whether the server took it */
  send(content) {
    return this._attempt(async () => {
      this._take(await post(`${this._path}/turns`, { content }));
      void this._follow();
    });
  }

  /** @param {Choice} choice @param {string[]} reasons */
  vote(choice, reasons) {
    return this._attempt(async () => {
      const revealed = await post(`${this._path}/vote`, { choice, reasons, token: this.token });
      this._stream?.abort();
      this._reveal(revealed);
      this.token = null;
    });
  }

  /** @param {string[]} reasons */
  giveReasons(reasons) {
    return this._attempt(async () => {
      this._reveal(await patch(`${this._path}/vote`, { reasons }));
    });
  }

  undo() {
    return this._attempt(async () => this._take(await remove(`${this._path}/vote`)));
  }

  /** @param {() => Promise<void>} work */
  async _attempt(work) {
    this.problem = null;
    try {
      await work();
      return true;
    } catch (error) {
      this.problem = problemOf(error);
      if (this.problem.code === "stale_vote" || this.problem.code === "already_voted") await this._refresh();
      return false;
    } finally {
      this.changed();
    }
  }

  async _refresh() {
    try {
      this._take(await get(this._path));
    } catch (error) {
      this.problem = problemOf(error);
    }
    this.changed();
  }

  async _follow() {
    this._stream?.abort();
    const stream = (this._stream = new AbortController());
    try {
      await follow((after) => `${this._path}/events${after ? `?after=${encodeURIComponent(after)}` : ""}`, (event) => this._heard(event), {
        signal: stream.signal,
        onConnection: (isUp) => {
          this.isOnline = isUp || !this.isAnswering; // the server ends the stream with the turn
          this.changed();
        },
      });
    } catch (error) {
      this.problem = problemOf(error);
    }
    if (!stream.signal.aborted) await this._refresh();
  }

  /** @param {any} event @returns {boolean} whether the turn is over */
  _heard(event) {
    const side = event.side ? this.sides[/** @type {SideName} */ (event.side)] : null;
    if (event.kind === "snapshot") this._take(event.battle);
    else if (event.kind === "votable") this.token = event.token;
    else if (side && event.kind === "replaced") {
      side.answers = [];
      side.state = "answering";
      this.sideReplaced = true;
      this.numReplaced++;
    } else if (side && event.kind === "delta") {
      side.answers[this.turn - 1] = (side.answers[this.turn - 1] ?? "") + event.text;
      side.state = "answering";
      this._soon();
      return false;
    } else if (side && event.kind === "began") side.state = "answering";
    else if (side) side.state = event.kind; // ended, failed
    this.changed();
    return !this.isAnswering;
  }

  /** Text comes faster than it can be read: once a frame is enough. */
  _soon() {
    this._frame ||= requestAnimationFrame(() => {
      this._frame = 0;
      this.changed();
    });
  }

  close() {
    this._stream?.abort();
    cancelAnimationFrame(this._frame);
  }
}
