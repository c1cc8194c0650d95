/** A button that opens a list of choices; arrows, Home, End, Escape and letters work as in any menu. */

import { html, useLayoutEffect, useId, useRef, useState } from "./html.js";

/** @typedef {{label: any, name?: string, isChecked?: boolean, isDisabled?: boolean, onChoose: () => void}} Choice */

/**
 * @param {{label: string, button: any, choices: Choice[], class?: string, align?: "start" | "end"}} props
 */
export function Menu({ label, button, choices, class: name = "", align = "start" }) {
  const [isOpen, setOpen] = useState(false);
  const id = useId();
  const root = useRef(/** @type {HTMLElement | null} */ (null));
  const opener = useRef(/** @type {HTMLElement | null} */ (null));

  useLayoutEffect(() => {
    if (!isOpen) return;
    const items = itemsOf(root.current);
    (items.find((item) => item.getAttribute("aria-checked") === "true") ?? items[0])?.focus();
    const onOutside = (/** @type {Event} */ event) => {
      if (!root.current?.contains(/** @type {Node} */ (event.target))) setOpen(false);
    };
    document.addEventListener("pointerdown", onOutside);
    return () => document.removeEventListener("pointerdown", onOutside);
  }, [isOpen]);

  const close = () => {
    setOpen(false);
    opener.current?.focus();
  };
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    if (!isOpen) {
      if (event.key === "ArrowDown" && event.target === opener.current) (event.preventDefault(), setOpen(true));
      return;
    }
    const items = itemsOf(root.current);
    const at = items.indexOf(/** @type {HTMLElement} */ (document.activeElement));
    const go = (/** @type {number} */ i) => (event.preventDefault(), items[(i + items.length) % items.length]?.focus());
    if (event.key === "Escape") (event.preventDefault(), event.stopPropagation(), close());
    else if (event.key === "Tab") setOpen(false);
    else if (event.key === "ArrowDown") go(at + 1);
    else if (event.key === "ArrowUp") go(at - 1);
    else if (event.key === "Home") go(0);
    else if (event.key === "End") go(-1);
    else if (/^\S$/.test(event.key)) {
      const after = [...items.slice(at + 1), ...items.slice(0, at + 1)];
      after.find((item) => item.textContent?.trim().toLowerCase().startsWith(event.key.toLowerCase()))?.focus();
    }
  };
  const onFocusOut = (/** @type {FocusEvent} */ event) => {
    const next = /** @type {Node | null} */ (event.relatedTarget);
    if (next && !root.current?.contains(next)) setOpen(false);
  };
  const hasChecks = choices.some((choice) => choice.isChecked !== undefined);
  return html`<div class=${`menu ${name}`} ref=${root} onKeyDown=${onKey} onFocusOut=${onFocusOut}>
    <button
      type="button"
      ref=${opener}
      class="menu-button"
      aria-haspopup="menu"
      aria-expanded=${isOpen}
      aria-controls=${isOpen ? id : undefined}
      aria-label=${label}
      title=${label}
      onClick=${() => setOpen(!isOpen)}
    >
      ${button}
    </button>
    ${isOpen &&
    html`<div class=${`menu-list ${align}`} id=${id} role="menu" aria-label=${label}>
      ${choices.map(
        (choice) => html`<button
          type="button"
          tabindex="-1"
          role=${hasChecks ? "menuitemradio" : "menuitem"}
          aria-checked=${hasChecks ? Boolean(choice.isChecked) : undefined}
          disabled=${choice.isDisabled}
          onClick=${() => (close(), choice.onChoose())}
        >
          ${choice.label}
        </button>`,
      )}
    </div>`}
  </div>`;
}

/** @param {HTMLElement | null} root */
function itemsOf(root) {
  return /** @type {HTMLElement[]} */ ([...(root?.querySelectorAll("[role^=menuitem]:not(:disabled)") ?? [])]);
}
