/**
 * Preact and htm under one roof: `html` makes elements, the hooks are Preact's. `useEffect` is not among them: it waits for
 * the screen, and keys that a fast typist presses meanwhile would find the focus and the listeners where they were before.
 */

import htm from "../vendor/htm.js";
import { Component, h } from "../vendor/preact.js";

export const html = htm.bind(h);

/**
 * A component that is drawn again only when one of its props is another.
 * @param {(props: any) => any} component
 */
export function memo(component) {
  return class extends Component {
    /** @param {Record<string, any>} next */
    shouldComponentUpdate(next) {
      const now = /** @type {Record<string, any>} */ (this.props);
      return Object.keys({ ...now, ...next }).some((name) => now[name] !== next[name]);
    }

    /** @param {any} props */
    render(props) {
      return h(component, props);
    }
  };
}

/** Holds what goes wrong in its children where it went wrong: `fallback` is shown there, and the rest of the page goes on. */
export class Boundary extends Component {
  constructor() {
    super();
    this.state = { error: null };
  }

  /** @param {unknown} error */
  static getDerivedStateFromError(error) {
    return { error };
  }

  render() {
    const { children, fallback } = /** @type {any} */ (this.props);
    const { error } = /** @type {any} */ (this.state);
    return error ? fallback(error, () => this.setState({ error: null })) : children;
  }
}
export { Fragment, render } from "../vendor/preact.js";
export { useCallback, useId, useLayoutEffect, useMemo, useReducer, useRef, useState } from "../vendor/hooks.js";
