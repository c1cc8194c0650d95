/** Something that is fetched and may change: loading, failed, empty, there; and live while events or a timer renew it. */

/** @import {EventStream} from "./events.js" */
/** @import {Problem} from "./types.js" */
import { CallFailed } from "./api.js";
import { Observable } from "./observable.js";

/** @template Data */
export class Resource extends Observable {
  /**
   * @param {(before: Data | null) => Promise<Data>} fetch  may add to what was there before
   * @param {(data: Data) => boolean} [isEmpty]
   */
  constructor(fetch, isEmpty = () => false) {
    super();
    this._fetch = fetch;
    this._isEmpty = isEmpty;
    /** @type {Data | null} */
    this.data = null;
    /** @type {Problem | null} */
    this.problem = null;
    this._numAsked = 0;
    this._isAsking = false;
    /** @type {Promise<void> | null} */
    this._loading = null;
  }

  get isEmpty() {
    return this.data !== null && this._isEmpty(this.data);
  }

  /** Fetch it, or again; whoever asks meanwhile shares the call. Its failure becomes `problem`. */
  load() {
    return (this._loading ??= this._renew().finally(() => (this._loading = null)));
  }

  async _renew() {
    try {
      await this.refresh();
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error;
    }
  }

  /** Fetch it, or again; of several calls under way the newest counts. @throws {CallFailed} */
  async refresh() {
    const number = ++this._numAsked;
    this._isAsking = true;
    try {
      const data = await this._fetch(this.data);
      if (number === this._numAsked) this._have(data);
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error;
      if (number !== this._numAsked) return;
      this.problem = error.problem;
      this.changed();
      throw error;
    } finally {
      if (number === this._numAsked) this._isAsking = false;
    }
  }

  /** Have new data, which came from elsewhere than a fetch. @param {Data} data */
  take(data) {
    this._have(data);
    if (this._isAsking) void this._renew(); // the call under way may be older
  }

  /** @param {Data} data */
  _have(data) {
    this.data = data;
    this.problem = null;
    this.changed();
  }

  /** Forget the data, and what is being fetched. */
  clear() {
    this._numAsked++;
    this._isAsking = false;
    this.data = null;
    this.changed();
  }

  /**
   * Have events of a type change the data once it is there. Fetch it again when events were missed.
   * @param {EventStream} events
   * @param {Record<string, (data: Data, event: any) => Data | null>} changes  by type; null: fetch it again
   */
  live(events, changes) {
    for (const [type, change] of Object.entries(changes)) {
      const hearer = (/** @type {any} */ event) => {
        const data = this.data && change(this.data, event);
        if (data) this.take(data);
        else void this._renew();
      };
      events.on({ [type]: hearer });
    }
    events.on({ missed: () => void this._renew() });
  }

  /**
   * Fetch it now and again, until what comes back is called or the data says that it is done.
   * @param {number} every_ms
   * @param {(data: Data) => boolean} [isDone]
   */
  follow(every_ms, isDone = () => false) {
    let timer = 0;
    let isOver = false;
    const again = async () => {
      if (!document.hidden || this.data === null) await this.load();
      if (!isOver && !(this.data !== null && isDone(this.data))) timer = setTimeout(again, every_ms);
    };
    void again();
    return () => {
      isOver = true;
      clearTimeout(timer);
    };
  }
}
