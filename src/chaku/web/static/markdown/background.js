/** Work that may take long for some text, done in a worker. What is not done in time is given up, and the text stays plain. */

import { startWorker } from "./sanitise.js";

const DEADLINE_MS = 2_000; // for the work itself
const LOADING_MS = 20_000; // for the worker and the library that it needs

/** @typedef {{request: object, resolve: (result: any) => void}} Task */

/** @type {Task[]} */
const waiting = [];
/** @type {Task | null} */
let current = null;
/** @type {Worker | null} */
let worker = null;
let timer = 0;

/**
 * Let the worker do something, after what it was asked before.
 * @param {{kind: "markdown", source: string, env: object} | {kind: "code", code: string, info: string}} request
 * @returns {Promise<any>} null when it could not be done, or not in time
 */
export function inBackground(request) {
  return new Promise((resolve) => {
    waiting.push({ request, resolve });
    next();
  });
}

function next() {
  if (current || !waiting.length) return;
  current = /** @type {Task} */ (waiting.shift());
  if (!worker) {
    worker = startWorker();
    worker.addEventListener("message", onMessage);
    worker.addEventListener("error", giveUp);
  }
  timer = setTimeout(giveUp, LOADING_MS);
  worker.postMessage(current.request);
}

/** @param {MessageEvent} event */
function onMessage({ data }) {
  clearTimeout(timer);
  if (data.isBegun) timer = setTimeout(giveUp, DEADLINE_MS);
  else end(data.result);
}

function giveUp() {
  clearTimeout(timer);
  worker?.terminate();
  worker = null;
  end(null);
}

/** @param {any} result */
function end(result) {
  const task = current;
  current = null;
  task?.resolve(result);
  next();
}
