/** Windows over the page, on the browser's own <dialog>: it holds the focus inside and gives it back. */

import { html, useLayoutEffect, useId, useRef } from "./html.js";
import { IconButton } from "./icons.js";

/**
 * @param {{title: string, onClose: () => void, kind?: "centre" | "drawer", children?: any}} props
 */
export function Dialog({ title, onClose, kind = "centre", children }) {
  const ref = useRef(/** @type {HTMLDialogElement | null} */ (null));
  const id = useId();
  useLayoutEffect(() => {
    const dialog = /** @type {HTMLDialogElement} */ (ref.current);
    const before = /** @type {HTMLElement | null} */ (document.activeElement);
    dialog.showModal();
    return () => {
      dialog.close();
      if (before?.isConnected) before.focus();
    };
  }, []);
  const onClosed = () => ref.current && onClose(); // a browser may close it without asking; not when it is gone already
  const onBackdrop = (/** @type {MouseEvent} */ event) => event.target === ref.current && onClose();
  return html`<dialog
    ref=${ref}
    class=${kind}
    aria-labelledby=${id}
    onCancel=${(/** @type {Event} */ event) => (event.preventDefault(), onClose())}
    onClose=${onClosed}
    onClick=${onBackdrop}
  >
    <div class="dialog-body">
      <header class="dialog-head">
        <h2 id=${id}>${title}</h2>
        <${IconButton} icon="close" label="Close" onClick=${onClose} />
      </header>
      ${children}
    </div>
  </dialog>`;
}
