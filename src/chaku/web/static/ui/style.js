/** Style sheets that come when they are needed. */

/** @type {Map<string, Promise<void>>} */
const wanted = new Map();

/** Put a style sheet on the page, once; resolves when it holds. A sheet that does not come is tried again. @param {URL} url */
export function addStyle({ href }) {
  const known = wanted.get(href);
  if (known) return known;
  const style = document.createElement("link");
  style.rel = "stylesheet";
  style.href = href;
  const loading = new Promise((/** @type {(value: void) => void} */ resolve, reject) => {
    style.onload = () => resolve();
    style.onerror = () => {
      wanted.delete(href);
      style.remove();
      reject(new Error(`${href} did not come`));
    };
  });
  wanted.set(href, loading);
  document.head.append(style);
  return loading;
}
