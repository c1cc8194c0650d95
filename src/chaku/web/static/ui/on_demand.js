/** Parts of the page that are fetched when they are first shown. */

import { html, useLayoutEffect, useReducer, useState } from "./html.js";

/**
 * A component that `load` brings when it is first drawn; nothing stands there until then. A load that fails reaches the
 * boundary around the component.
 * @param {() => Promise<any>} load
 */
export function onDemand(load) {
  /** @type {any} */
  let component = null;
  return function OnDemand(/** @type {any} */ props) {
    const [, redraw] = useReducer((/** @type {number} */ n) => n + 1, 0);
    const [failure, setFailure] = useState(/** @type {unknown} */ (null));
    useLayoutEffect(() => {
      if (component) return;
      load().then(
        (found) => {
          component = found;
          redraw(0);
        },
        (error) => setFailure(() => error),
      );
    }, []);
    if (failure) throw failure;
    return component && html`<${component} ...${props} />`;
  };
}
