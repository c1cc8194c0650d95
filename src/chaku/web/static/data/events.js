/**
 * What happens at the server, heard by every tab over one connection: a browser has few for one server. The tab that holds
 * the lock listens and passes on; when it is closed, another takes its place. Where a browser shares no locks (plain HTTP
 * from another machine), each tab listens for itself while it is seen.
 */

import { CallFailed, follow } from "./api.js";

const NAME = "chaku.events";
const HIDDEN_LIMIT_MS = 20_000;

/**
 * @typedef {object} Listener
 * @property {(event: any) => void} onEvent
 * @property {(isUp: boolean) => void} onConnection
 * @property {() => void} onMissed  events may have been missed
 * @property {() => void} onRefused  the server no longer knows us
 */

/**
 * Listen until what comes back is called.
 * @param {Listener} listener
 * @returns {() => void}
 */
export function listen(listener) {
  const ending = new AbortController();
  if (navigator.locks && "BroadcastChannel" in globalThis) shared(listener, ending.signal);
  else alone(listener, ending.signal);
  return () => ending.abort();
}

/** @param {Listener} listener @param {AbortSignal} signal */
function shared(listener, signal) {
  const channel = new BroadcastChannel(NAME);
  const hear = (/** @type {any} */ said) => {
    if (said.event) listener.onEvent(said.event);
    else if (said.isMissed) listener.onMissed();
    else listener.onConnection(said.isUp);
  };
  channel.onmessage = ({ data }) => hear(data);
  const tell = (/** @type {any} */ said) => {
    channel.postMessage(said);
    hear(said);
  };
  signal.addEventListener("abort", () => channel.close());
  navigator.locks
    .request(NAME, { signal }, async () => {
      tell({ isMissed: true }); // whoever led before may have been gone for a while
      await stream({ ...listener, onEvent: (event) => tell({ event }), onConnection: (isUp) => tell({ isUp }), onMissed: () => tell({ isMissed: true }) }, signal);
    })
    .catch((/** @type {unknown} */ error) => {
      if (!signal.aborted) throw error;
    });
}

/** @param {Listener} listener @param {AbortSignal} signal */
function alone(listener, signal) {
  let timer = 0;
  /** @type {AbortController | null} */
  let current = null;
  const start = () => {
    current = new AbortController();
    void stream(listener, current.signal);
  };
  const onVisibility = () => {
    clearTimeout(timer);
    if (document.hidden) {
      timer = setTimeout(() => {
        current?.abort();
        current = null;
      }, HIDDEN_LIMIT_MS);
    } else if (!current) {
      start();
      listener.onMissed();
    }
  };
  start();
  document.addEventListener("visibilitychange", onVisibility);
  signal.addEventListener("abort", () => {
    clearTimeout(timer);
    current?.abort();
    document.removeEventListener("visibilitychange", onVisibility);
  });
}

/** @param {Listener} listener @param {AbortSignal} signal */
async function stream({ onEvent, onConnection, onMissed, onRefused }, signal) {
  let wasDown = false;
  const connection = (/** @type {boolean} */ isUp) => {
    if (isUp && wasDown) onMissed();
    wasDown = !isUp;
    onConnection(isUp);
  };
  try {
    await follow(() => "/events", (event) => void onEvent(event), { signal, onConnection: connection });
  } catch (error) {
    if (!(error instanceof CallFailed) || error.status !== 401) throw error;
    onRefused();
  }
}
