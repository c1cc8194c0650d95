/** Parts of the page that are fetched when they are first shown. */

import { html, useLayoutEffect, useReducer, useState } from "./html.js";

/**
 * A component that `load` brings when it is first drawn, or when its `fetch` is called; nothing stands there until then.
 * A load that fails reaches the boundary around the component, and is tried again when the component is next drawn.
 * @param {() => Promise<any>} load
 */
export function onDemand(load) {
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
        (error) => setFailure(() => error),
      );
    }, []);
    if (failure) throw failure;
    return component && html`<${component} ...${props} />`;
  }
}
