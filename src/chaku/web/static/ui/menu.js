/**
 * A button that opens a list of choices; arrows, Home, End, Escape and letters work as in any menu. The list stands in the
 * browser's top layer, where nothing around the button can clip or cover it.
 */

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
  const list = useRef(/** @type {HTMLElement | null} */ (null));

  useLayoutEffect(() => {
    if (!isOpen) return;
    const shown = /** @type {HTMLElement} */ (list.current);
    const place = () => placeBeside(shown, /** @type {HTMLElement} */ (opener.current), align);
    shown.showPopover();
    place();
    const items = itemsOf(root.current);
    (items.find((item) => item.getAttribute("aria-checked") === "true") ?? items[0])?.focus();
    const onOutside = (/** @type {Event} */ event) => {
      if (!root.current?.contains(/** @type {Node} */ (event.target))) setOpen(false);
    };
    document.addEventListener("pointerdown", onOutside);
    addEventListener("scroll", place, { capture: true, passive: true });
    addEventListener("resize", place);
    return () => {
      document.removeEventListener("pointerdown", onOutside);
      removeEventListener("scroll", place, { capture: true });
      removeEventListener("resize", place);
    };
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
    html`<div class="menu-list" popover="manual" ref=${list} id=${id} role="menu" aria-label=${label}>
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

const GAP = 4; // pixels between a button and its list
const EDGE = 8; // pixels to the edge of the window

/** Put a list below its button, or above where there is more room. @param {HTMLElement} list @param {HTMLElement} button @param {"start" | "end"} align */
function placeBeside(list, button, align) {
  const at = button.getBoundingClientRect();
  const below = innerHeight - at.bottom - GAP - EDGE;
  const above = at.top - GAP - EDGE;
  const isBelow = list.scrollHeight <= below || below >= above;
  list.style.maxHeight = `${Math.max(80, Math.min(isBelow ? below : above, innerHeight * 0.6))}px`;
  const { width, height } = list.getBoundingClientRect();
  const isLeft = (align === "start") === (getComputedStyle(button).direction === "ltr");
  const left = isLeft ? at.left : at.right - width;
  list.style.left = `${Math.max(EDGE, Math.min(left, innerWidth - width - EDGE))}px`;
  list.style.top = `${isBelow ? at.bottom + GAP : at.top - GAP - height}px`;
}

/** @param {HTMLElement | null} root */
function itemsOf(root) {
  return /** @type {HTMLElement[]} */ ([...(root?.querySelectorAll("[role^=menuitem]:not(:disabled)") ?? [])]);
}
