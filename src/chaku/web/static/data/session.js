/** Who is here, and what comes and goes with them: the data that a login opens, and the events that keep it live. */

/** @import {EventStream} from "./events.js" */
/** @import {Resource} from "./resource.js" */
/** @import {SessionFacts} from "./types.js" */
import { get, post } from "./api.js";
import { Observable } from "./observable.js";

export class Session extends Observable {
  /** @param {EventStream} events @param {Resource<any>[]} contents  what only a known visitor may fetch */
  constructor(events, contents) {
    super();
    this._events = events;
    this._contents = contents;
    /** @type {SessionFacts | null} */
    this.facts = null;
    events.on({ refused: () => this.forget() });
  }

  /** The server has keys, so programs and workers need one too. */
  get asksForKeys() {
    return this.facts?.login_required ?? false;
  }

  get needsLogin() {
    return this.asksForKeys && !this.facts?.user;
  }

  /** Ask who we are; when we may, fetch everything and stay live. @throws {CallFailed} */
  async start() {
    /** @type {SessionFacts} */
    const facts = await get("/session");
    if (facts.user || !facts.login_required) {
      await Promise.all(this._contents.map((content) => content.refresh()));
      this._events.start();
    }
    this._take(facts);
  }

  /** @param {string} key */
  async login(key) {
    await post("/login", { key });
    await this.start();
  }

  async logout() {
    await post("/logout");
    this.forget();
  }

  /** The server no longer knows us: show the login. */
  forget() {
    this._events.stop();
    for (const content of this._contents) content.clear();
    if (this.facts) this._take({ ...this.facts, login_required: true, user: null });
  }

  /** @param {SessionFacts} facts */
  _take(facts) {
    this.facts = facts;
    this.changed();
  }
}
