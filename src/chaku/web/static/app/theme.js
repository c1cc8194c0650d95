/** Light, dark, or as the system has it; kept in this browser. */

const KEY = "chaku.theme";
const NAMES = /** @type {const} */ (["system", "light", "dark"]);

/** @returns {typeof NAMES[number]} */
export function themeName() {
  const kept = localStorage.getItem(KEY);
  return NAMES.find((name) => name === kept) ?? "system";
}

/** Draw the page in the theme that is kept. */
export function applyTheme() {
  const name = themeName();
  if (name === "system") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
}

export function nextTheme() {
  localStorage.setItem(KEY, NAMES[(NAMES.indexOf(themeName()) + 1) % NAMES.length]);
  applyTheme();
}
