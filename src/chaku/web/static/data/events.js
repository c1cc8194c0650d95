/**
 * What happens at the server, heard by every tab over one connection: a browser has few for one server. The tab that holds
 * the lock listens and passes on; when it is closed, another takes its place. Where a browser shares no locks (plain HTTP
 * from another machine), each tab listens for itself while it is seen.
 */

import { CallFailed, follow } from "./api.js";
import { Observable } from "./observable.js";

const NAME = "chaku.events";
const HIDDEN_LIMIT_MS = 20_000;
const MISSED = { type: "missed" };

/** @typedef {Record<string, (event: any) => void>} Hearers */

/**
 * The events of the server, for whoever in this tab wants to hear them. Two types come from here: "missed" when some were
 * lost, "refused" when the server no longer knows us.
 */
export class EventStream extends Observable {
  constructor() {
    super();
    this.isUp = true; // the connection
    /** @type {Set<Hearers>} */
    this._hearers = new Set();
    /** @type {AbortController | null} */
    this._ending = null;
  }

  /** Hear events by their type, until what comes back is called. @param {Hearers} hearers */
  on(hearers) {
    this._hearers.add(hearers);
    return () => void this._hearers.delete(hearers);
  }

  start() {
    if (this._ending) return;
    this._ending = new AbortController();
    if (navigator.locks && "BroadcastChannel" in globalThis) shared(this, this._ending.signal);
    else alone(this, this._ending.signal);
  }

  stop() {
    this._ending?.abort();
    this._ending = null;
  }

  /** @param {{type: string}} event */
  hear(event) {
    for (const hearers of [...this._hearers]) hearers[event.type]?.(event);
  }

  /** @param {boolean} isUp */
  connected(isUp) {
    if (this.isUp === isUp) return;
    this.isUp = isUp;
    this.changed();
  }
}

/** @typedef {{event: any} | {isUp: boolean}} Message  what the listening tab tells the others */

/** @param {EventStream} events @param {Message} message */
function hear(events, message) {
  if ("event" in message) events.hear(message.event);
  else events.connected(message.isUp);
}

/** @param {EventStream} events @param {AbortSignal} signal */
function shared(events, signal) {
  const channel = new BroadcastChannel(NAME);
  channel.onmessage = ({ data }) => hear(events, data);
  const tell = (/** @type {Message} */ message) => {
    channel.postMessage(message);
    hear(events, message);
  };
  signal.addEventListener("abort", () => channel.close());
  navigator.locks
    .request(NAME, { signal }, () => stream(events, tell, signal))
    .catch((/** @type {unknown} */ error) => {
      if (!signal.aborted) throw error;
    });
}

/** @param {EventStream} events @param {AbortSignal} signal */
function alone(events, signal) {
  let timer = 0;
  /** @type {AbortController | null} */
  let current = null;
  const start = () => {
    current = new AbortController();
    void stream(events, (message) => hear(events, message), current.signal);
  };
  const onVisibility = () => {
    clearTimeout(timer);
    if (document.hidden) {
      timer = setTimeout(() => {
        current?.abort();
        current = null;
      }, HIDDEN_LIMIT_MS);
    } else if (!current) start();
  };
  start();
  document.addEventListener("visibilitychange", onVisibility);
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    current?.abort();
    document.removeEventListener("visibilitychange", onVisibility);
  });
}

/** @param {EventStream} events @param {(message: Message) => void} tell @param {AbortSignal} signal */
async function stream(events, tell, signal) {
  const path = (/** @type {string} */ after) => `/events${after && `?after=${after}`}`;
  const onConnection = (/** @type {boolean} */ isUp, /** @type {string} */ after) => {
    if (isUp && !after) tell({ event: MISSED }); // of what happened before
    tell({ isUp });
  };
  try {
    await follow(path, (event) => tell({ event }), { signal, onConnection });
  } catch (error) {
    if (!(error instanceof CallFailed) || error.status !== 401) throw error;
    events.hear({ type: "refused" });
  }
}
