/** Something that is fetched and may change: loading, failed, empty, there; and live while someone looks at it. */

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
    /** @type {Promise<void> | null} */
    this._loading = null;
  }

  get isEmpty() {
    return this.data !== null && this._isEmpty(this.data);
  }

  /** Fetch it, or again; one call at a time. */
  load() {
    return (this._loading ??= this._load().finally(() => (this._loading = null)));
  }

  async _load() {
    try {
      this.data = await this._fetch(this.data);
      this.problem = null;
    } catch (error) {
      if (!(error instanceof CallFailed)) throw error;
      this.problem = error.problem;
    }
    this.changed();
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
