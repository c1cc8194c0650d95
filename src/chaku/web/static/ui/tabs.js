/** Several views in one place, of which one is seen; the arrow keys go from tab to tab. */

import { html, useId, useRef } from "./html.js";

/**
 * @param {object} props
 * @param {string} props.label
 * @param {{name: string, label: string}[]} props.tabs
 * @param {string} props.chosen  name of the tab that is open
 * @param {(name: string) => void} props.onChoose
 * @param {any} props.children  what the open tab shows
 */
export function Tabs({ label, tabs, chosen, onChoose, children }) {
  const id = useId();
  const list = useRef(/** @type {HTMLElement | null} */ (null));
  const onKey = (/** @type {KeyboardEvent} */ event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = tabs.findIndex(({ name }) => name === chosen);
    const next = Number.isFinite(step) ? (at + step + tabs.length) % tabs.length : step < 0 ? 0 : tabs.length - 1;
    onChoose(tabs[next].name);
    /** @type {HTMLElement} */ (list.current?.children[next]).focus();
  };
  return html`<div class="tabs">
    <div role="tablist" aria-label=${label} ref=${list} onKeyDown=${onKey}>
      ${tabs.map(
        ({ name, label }) => html`<button
          key=${name}
          type="button"
          role="tab"
          id=${`${id}-${name}`}
          aria-selected=${name === chosen}
          aria-controls=${`${id}-panel`}
          tabindex=${name === chosen ? 0 : -1}
          onClick=${() => onChoose(name)}
        >
          ${label}
        </button>`,
      )}
    </div>
    <div role="tabpanel" id=${`${id}-panel`} aria-labelledby=${`${id}-${chosen}`}>${children}</div>
  </div>`;
}
