/** Something whose changes can be listened to; the one way in which state reaches components. */

import { useLayoutEffect, useReducer } from "../ui/html.js";

export class Observable {
  constructor() {
    /** @type {Set<() => void>} */
    this._listeners = new Set();
  }

  /** @param {() => void} listener @returns {() => void} ends it */
  subscribe(listener) {
    this._listeners.add(listener);
    return () => void this._listeners.delete(listener);
  }

  changed() {
    for (const listener of [...this._listeners]) listener();
  }
}

/** Render again whenever `source` changes. @param {Observable} source */
export function useChanges(source) {
  const [, again] = useReducer((/** @type {number} */ n) => n + 1, 0);
  useLayoutEffect(() => {
    again(0);
    return source.subscribe(() => again(0));
  }, [source]);
}
