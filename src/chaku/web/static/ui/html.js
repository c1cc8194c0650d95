/**
 * Preact and htm under one roof: `html` makes elements, the hooks are Preact's. `useEffect` is not among them: it waits for
 * the screen, and keys that a fast typist presses meanwhile would find the focus and the listeners where they were before.
 */

import htm from "../vendor/htm.js";
import { h } from "../vendor/preact.js";

export const html = htm.bind(h);
export { Fragment, render } from "../vendor/preact.js";
export { useCallback, useId, useLayoutEffect, useMemo, useReducer, useRef, useState } from "../vendor/hooks.js";
