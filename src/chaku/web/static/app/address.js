/** What the page's address says: which chat is open. Following a link inside of the page loads nothing. */

/** @returns {string | null} the chat that the address names */
export function chatInAddress() {
  return /^\/chat\/([\w-]+)/.exec(location.pathname)?.[1] ?? null;
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
    if (event.defaultPrevented) return;
    event.preventDefault();
    goTo(link.pathname);
  };
  addEventListener("popstate", listener);
  document.addEventListener("click", onClick);
  return () => {
    removeEventListener("popstate", listener);
    document.removeEventListener("click", onClick);
  };
}
