/** Shows a message that a link or a search leads to, and marks the words that were searched for. Comes when it is needed. */

const SETTLING_FRAMES = 20; // in which the browser learns the heights of what it has not drawn before
const DRAWING_MS = 3_000; // in which the answer's text, formulas and colours come
const MOST_MARKS = 200;

/**
 * @param {HTMLElement} box  that scrolls
 * @param {HTMLElement} message
 * @param {string} words  what was searched for, "" for nothing
 */
export function showFound(box, message, words) {
  message.classList.add("found");
  message.addEventListener("animationend", () => message.classList.remove("found"), { once: true });
  /** @type {Range | null} */
  let first = null;
  let frames = 0;
  const stop = () => (frames = SETTLING_FRAMES);
  for (const kind of ["wheel", "touchmove", "keydown"]) box.addEventListener(kind, stop, { once: true, passive: true });
  const hold = () => {
    if (frames++ >= SETTLING_FRAMES || !message.isConnected) return;
    const at = (first ?? message).getBoundingClientRect();
    const outer = box.getBoundingClientRect();
    const room = Math.max(0, outer.height - at.height) / 3;
    box.scrollTop += at.top - outer.top - room;
    requestAnimationFrame(hold);
  };
  const mark = () => {
    const ranges = words ? rangesOf(message, words) : [];
    if (globalThis.CSS?.highlights) {
      if (ranges.length) CSS.highlights.set("found", new Highlight(...ranges));
      else CSS.highlights.delete("found");
    }
    if (ranges[0] && !first) [first, frames] = [ranges[0], Math.min(frames, SETTLING_FRAMES / 2)];
  };
  mark();
  requestAnimationFrame(hold);
  if (!words) return;
  const watcher = new MutationObserver(mark);
  watcher.observe(message, { childList: true, subtree: true, characterData: true });
  setTimeout(() => watcher.disconnect(), DRAWING_MS);
}

/** Where the words stand in what is drawn of a message. @param {HTMLElement} message @param {string} words */
function rangesOf(message, words) {
  const wanted = words.trim().toLowerCase();
  const walker = document.createTreeWalker(message, NodeFilter.SHOW_TEXT);
  /** @type {Range[]} */
  const ranges = [];
  for (let node = walker.nextNode(); node && wanted; node = walker.nextNode()) {
    const text = (node.textContent ?? "").toLowerCase();
    if (!node.parentElement?.closest(".said, .answer-body, .told, .source") || text.length !== node.textContent?.length) continue;
    for (let at = text.indexOf(wanted); at >= 0 && ranges.length < MOST_MARKS; at = text.indexOf(wanted, at + wanted.length)) {
      const range = new Range();
      range.setStart(node, at);
      range.setEnd(node, at + wanted.length);
      ranges.push(range);
    }
  }
  return ranges;
}
