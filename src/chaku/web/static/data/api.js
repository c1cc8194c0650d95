/** Calls of the page's own server: JSON in and out, and streams that can be taken up again where they broke off. */

/** @import {Problem} from "./types.js" */
import { EventParser } from "./sse.js";

/** A call that failed. `problem` is what the server said, or what this page says about the connection. */
export class CallFailed extends Error {
  /** @param {number} status  0 when the server could not be reached @param {Problem} problem */
  constructor(status, problem) {
    super(problem.message);
    this.status = status;
    this.problem = problem;
  }
}

/** What a caught error means to the reader. @param {unknown} error @returns {Problem} */
export function problemOf(error) {
  if (error instanceof CallFailed) return { ...error.problem, type: error.problem.type ?? `HTTP ${error.status}` };
  const message = error instanceof Error ? error.message : String(error);
  return { code: "page_error", message, fix: "Reload the page; if it happens again, please report it with the details." };
}

const SILENCE_LIMIT_MS = 40_000; // the server says something at least every 15 s
const RETRY_FIRST_MS = 400;
const RETRY_LAST_MS = 5_000;

/** @returns {Problem} */
function unreachable() {
  return {
    code: "unreachable",
    message: "The chaku server does not answer.",
    fix: "Check that `chaku serve` is still running and that this computer reaches it. The page goes on by itself.",
  };
}

/**
 * @param {string} method
 * @param {string} path  below /api
 * @param {unknown} [body]  an object as JSON, a string or a file as it is
 * @param {AbortSignal} [signal]
 */
async function request(method, path, body, signal) {
  /** @type {Record<string, string>} */
  const headers = { accept: "application/json, text/event-stream" };
  if (method !== "GET") headers["x-chaku"] = "1";
  const isRaw = typeof body === "string" || body instanceof Blob;
  if (body !== undefined) headers["content-type"] = isRaw ? "text/plain" : "application/json";
  const raw = body === undefined || isRaw ? /** @type {string | Blob | undefined} */ (body) : JSON.stringify(body);
  let response;
  try {
    response = await fetch(`/api${path}`, { method, headers, body: raw, signal, credentials: "same-origin" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new CallFailed(0, unreachable());
  }
  if (!response.ok) throw await failure(response);
  return response;
}

/** @param {Response} response */
async function failure(response) {
  const text = await response.text().catch(() => "");
  try {
    const said = JSON.parse(text);
    return new CallFailed(response.status, { ...said.error, fix: said.error.fix ?? said.fix });
  } catch {
    const message = `The server answered ${response.status} without saying why.`;
    return new CallFailed(response.status, { code: String(response.status), message, fix: "Its log may say more." });
  }
}

/** @param {string} method @param {string} path @param {unknown} [body] @returns {Promise<any>} */
export async function call(method, path, body) {
  const response = await request(method, path, body);
  return response.status === 204 ? null : response.json();
}

/** @param {string} path */
export const get = (path) => call("GET", path);
/** @param {string} path @param {unknown} [body] */
export const post = (path, body) => call("POST", path, body);
/** @param {string} path @param {unknown} body */
export const patch = (path, body) => call("PATCH", path, body);
/** @param {string} path */
export const remove = (path) => call("DELETE", path);

/** @param {string} path @returns {Promise<string>} */
export async function getText(path) {
  return (await request("GET", path)).text();
}

/**
 * Follow a stream of events until `onEvent` answers true, `signal` ends it, or the server refuses it. A lost connection
 * is made again, from where it broke off.
 *
 * @param {(lastId: string) => string} path  where to go on after the event `lastId` ("" at the start)
 * @param {(data: any) => boolean | void} onEvent
 * @param {{signal: AbortSignal, onConnection?: (isUp: boolean, lastId: string) => void}} options
 * @throws {CallFailed} when the server refuses the stream
 */
export async function follow(path, onEvent, { signal, onConnection }) {
  let lastId = "";
  let wait = RETRY_FIRST_MS;
  while (!signal.aborted) {
    try {
      const response = await request("GET", path(lastId), undefined, signal);
      onConnection?.(true, lastId);
      for await (const { id, data } of events(response, signal)) {
        wait = RETRY_FIRST_MS;
        lastId = id || lastId;
        if (onEvent(JSON.parse(data))) return;
      }
    } catch (error) {
      if (signal.aborted) return;
      const isRefused = error instanceof CallFailed && error.status >= 400 && error.status < 500 && error.status !== 429;
      if (isRefused || error instanceof SyntaxError) throw error;
    }
    onConnection?.(false, lastId);
    await pause(wait, signal);
    wait = Math.min(wait * 1.7, RETRY_LAST_MS);
  }
}

/** @param {Response} response @param {AbortSignal} signal */
async function* events(response, signal) {
  const reader = /** @type {ReadableStream<Uint8Array>} */ (response.body).getReader();
  const decoder = new TextDecoder();
  const parser = new EventParser();
  const cancel = () => void reader.cancel().catch(() => {});
  signal.addEventListener("abort", cancel);
  let watch = setTimeout(cancel, SILENCE_LIMIT_MS);
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      clearTimeout(watch);
      watch = setTimeout(cancel, SILENCE_LIMIT_MS);
      yield* parser.push(decoder.decode(value, { stream: true }));
    }
  } finally {
    clearTimeout(watch);
    signal.removeEventListener("abort", cancel);
    cancel();
  }
}

/** @param {number} ms @param {AbortSignal} signal */
function pause(ms, signal) {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      removeEventListener("online", end);
      resolve(undefined);
    };
    const timer = setTimeout(end, ms);
    addEventListener("online", end, { once: true });
    signal.addEventListener("abort", end, { once: true });
  });
}
