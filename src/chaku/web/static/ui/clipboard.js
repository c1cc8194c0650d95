/** Copying, also where the browser keeps its clipboard from pages that came over plain HTTP. */

/** @param {string} text @returns {Promise<boolean>} */
export async function copyText(text) {
  if (navigator.clipboard) {
    try {
      await navigator.clipboard.writeText(text);
      return true;
    } catch {
      // not allowed here: the old way may be
    }
  }
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "visually-hidden";
  (document.querySelector("dialog[open]") ?? document.body).append(field);
  const focused = /** @type {HTMLElement | null} */ (document.activeElement);
  field.select();
  const isDone = document.execCommand("copy");
  field.remove();
  focused?.focus();
  return isDone;
}

/**
 * A button that says for a moment that it has copied.
 * @param {string} label
 * @param {() => Promise<boolean>} copy
 */
export function copyButton(label, copy) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.addEventListener("click", async () => {
    button.textContent = (await copy()) ? "Copied" : "Not allowed";
    setTimeout(() => (button.textContent = label), 1500);
  });
  return button;
}
