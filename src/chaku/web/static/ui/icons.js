/** The page's icons: 16-unit line drawings in the colour of the text. */

import { html } from "./html.js";

/** @type {Record<string, string>} */
const PATHS = {
  box: "M2.500 5l5.500-2.500L13.500 5v6L8 13.500 2.500 11zM2.500 5L8 7.500 13.500 5M8 7.500v6",
  chart: "M2.500 2.500v11h11M5 10l2.500-3 2 2L13 4.500",
  chat: "M2.500 3.500h11v7.500H7L4 13.500V11H2.500z",
  chevron: "M4 6l4 4 4-4",
  close: "M4 4l8 8M12 4l-8 8",
  columns: "M2.500 3h4.500v10H2.500zM9 3h4.500v10H9z",
  copy: "M5.5 5.5V2.500h8v8h-3M2.500 5.500h8v8h-8z",
  down: "M8 3v10M4 9l4 4 4-4",
  edit: "M3 13l.5-3L10.500 3l2.500 2.500-7 7z",
  gear: "M2.500 5h6M12 5h1.500M2.500 11H4M7.500 11h6M10.250 3.250v3.500M5.750 9.250v3.500",
  key: "M8.500 10.500a3 3 0 1 1-6 0 3 3 0 0 1 6 0zM7.600 8.400L13.500 2.500M11 5l2 2",
  left: "M10 4L6 8l4 4",
  menu: "M2.500 4.500h11M2.500 8h11M2.500 11.500h11",
  more: "M3.500 8h.01M8 8h.01M12.500 8h.01",
  paperclip: "M12.500 7.500l-5 5a3 3 0 0 1-4.300-4.300l5.600-5.500a2 2 0 0 1 2.800 2.800L6.200 11a1 1 0 0 1-1.400-1.400l4.700-4.700",
  pin: "M6 2.500h4l-.5 4 2 2.500h-7l2-2.500zM8 9v4.500",
  podium: "M2.500 13.500V8.500h3.500v5M6 13.500V3h4v10.500M10 13.500V6.500h3.500v7z",
  plus: "M8 3v10M3 8h10",
  refresh: "M13 8a5 5 0 1 1-1.500-3.600M13 2.500v3h-3",
  right: "M6 4l4 4-4 4",
  scales: "M8 2.500v11M5 13.500h6M3 4.500h10M3 4.500L1.500 9a1.750 1.750 0 0 0 3 0zM13 4.500L11.500 9a1.750 1.750 0 0 0 3 0z",
  search: "M7 11.500a4.500 4.500 0 1 0 0-9 4.500 4.500 0 0 0 0 9zM10.500 10.500l3 3",
  send: "M8 13V3M4 7l4-4 4 4",
  server: "M2.500 3h11v4h-11zM2.500 9h11v4h-11zM5 5h.01M5 11h.01",
  stop: "M4.500 4.500h7v7h-7z",
  text: "M3 4h10M3 8h10M3 12h6",
  up: "M4 10l4-4 4 4",
  thumb: "M5 7l2.500-4.500c1 0 1.500.8 1.300 1.700L8.500 6h3.300c.8 0 1.400.7 1.200 1.500l-.8 4c-.1.600-.6 1-1.200 1H5zM5 7H3v5.500h2",
};

/** @param {{name: string}} props */
export function Icon({ name }) {
  return html`<svg class="icon" viewBox="0 0 16 16" aria-hidden="true" focusable="false">
    <path d=${PATHS[name]} class=${name === "stop" ? "filled" : name === "more" ? "dots" : ""} />
  </svg>`;
}

/**
 * A button with a picture and a name that is spoken and shown on hover.
 * @param {{icon: string, label: string, onClick?: (event: Event) => void, [rest: string]: any}} props
 */
export function IconButton({ icon, label, onClick, class: name = "", ...rest }) {
  return html`<button type="button" class=${`icon-button ${name}`} aria-label=${label} title=${label} onClick=${onClick} ...${rest}>
    <${Icon} name=${icon} />
  </button>`;
}
