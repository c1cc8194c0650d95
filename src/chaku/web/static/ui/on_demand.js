/** Parts of the page that are fetched when they are first shown. */

import { html, useLayoutEffect, useReducer, useState } from "./html.js";

/**
 * A component that `load` brings when it is first drawn, or when its `fetch` is called; nothing stands there until then.
 * A load that fails reaches the boundary around the component, unless the component is an aside: its place stays empty,
 * and the load is tried again when it is next drawn.
 * @param {() => Promise<any>} load
 * @param {boolean} [isAside]
 */
export function onDemand(load, isAside = false) {
  /** @type {any} */
  let component = null;
  const fetched = async () => void (component ??= await load());
  return Object.assign(OnDemand, { fetch: () => void fetched().catch(() => {}) });

  function OnDemand(/** @type {any} */ props) {
    const [, redraw] = useReducer((/** @type {number} */ n) => n + 1, 0);
    const [failure, setFailure] = useState(/** @type {unknown} */ (null));
    useLayoutEffect(() => {
      if (component) return;
      fetched().then(
        () => redraw(0),
        (error) => isAside || setFailure(() => error),
      );
    }, isAside ? undefined : []);
    if (failure) throw failure;
    return component && html`<${component} ...${props} />`;
  }
}
