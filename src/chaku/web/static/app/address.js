/** What the page's address says: which screen is open, and what on it. Following a link inside of the page loads nothing. */

import { ROUTES } from "./routes.js";

/** @typedef {{screen: string, params: Record<string, string>, query: URLSearchParams}} Route */

/**
 * The route of an address, null where the page has none.
 * @param {string} pathname
 * @param {string} [search]
 * @returns {Route | null}
 */
export function routeOf(pathname, search = "") {
  const parts = pathname.split("/").filter(Boolean);
  for (const { screen, path } of ROUTES) {
    const wanted = path.split("/").filter(Boolean);
    if (wanted.length !== parts.length) continue;
    /** @type {Record<string, string>} */
    const params = {};
    const fits = wanted.every((name, i) => {
      if (!name.startsWith(":")) return name === parts[i];
      try {
        params[name.slice(1)] = decodeURIComponent(parts[i]);
        return true;
      } catch {
        return false; // a percent sign that begins nothing
      }
    });
    if (fits) return { screen, params, query: new URLSearchParams(search) };
  }
  return null;
}

/** @returns {Route | null} where the page is now */
export function currentRoute() {
  return routeOf(location.pathname, location.search);
}

/** @returns {string | null} the chat that the address names */
export function chatInAddress() {
  const route = currentRoute();
  return route?.screen === "chat" ? (route.params.chat ?? null) : null;
}

/** @param {string} path */
export function goTo(path) {
  history.pushState(null, "", path);
  dispatchEvent(new PopStateEvent("popstate"));
}

/** The same place under a new name. @param {string} path */
export function replaceAddress(path) {
  history.replaceState(null, "", path);
}

/**
 * Hear of a new address: by the browser's own buttons, or by a link to another place on this page.
 * @param {() => void} listener
 * @returns {() => void} ends it
 */
export function onAddressChange(listener) {
  const onClick = (/** @type {MouseEvent} */ event) => {
    const link = /** @type {HTMLElement} */ (event.target).closest("a");
    const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey && !event.altKey;
    if (!link || !isPlain || link.target || link.download || link.origin !== location.origin) return;
    if (event.defaultPrevented || !routeOf(link.pathname)) return;
    event.preventDefault();
    goTo(link.pathname + link.search);
  };
  addEventListener("popstate", listener);
  document.addEventListener("click", onClick);
  return () => {
    removeEventListener("popstate", listener);
    document.removeEventListener("click", onClick);
  };
}
