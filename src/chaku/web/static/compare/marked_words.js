/** Marks the words in which answers differ from the first one, without touching what is drawn (CSS highlights). */

import { MOST_WORDS, differentWords } from "./word_diff.js";

const NAME = "differs";
const PAUSE_MS = 150; // after the last change of what is drawn

/** Whether this browser can mark words. */
export const CAN_MARK = Boolean(globalThis.CSS?.highlights);

/**
 * Keep the last answer of each column marked until what comes back is called.
 * @param {HTMLElement} root  whose `.compare-column`s hold the answers
 * @param {(words: string) => void} tell  how many differ
 * @returns {() => void}
 */
export function markDifferences(root, tell) {
  let timer = 0;
  const mark = () => {
    const answers = [...root.querySelectorAll(".compare-column")].map((column) => wordsOf([...column.querySelectorAll(".message.assistant .answer-body")].at(-1)));
    if (answers.length < 2 || answers.some(({ words }) => !words.length)) {
      CSS.highlights.delete(NAME);
      return tell("");
    }
    const [first, ...others] = answers;
    const diffs = others.map(({ words }) => differentWords(first.words, words));
    const onlyFirst = first.ranges.filter((_, i) => diffs.every((diff) => diff.first.includes(i)));
    const ranges = [...onlyFirst, ...others.flatMap((other, n) => diffs[n].second.map((i) => other.ranges[i]))];
    CSS.highlights.set(NAME, new Highlight(...ranges));
    const counts = others.map(({ words }, n) => `${diffs[n].second.length} of ${Math.min(words.length, MOST_WORDS)} words of answer ${n + 2} are not in answer 1`);
    tell(`${counts.join("; ")}.${answers.some(({ words }) => words.length > MOST_WORDS) ? ` Only the first ${MOST_WORDS.toLocaleString("en")} words are compared.` : ""}`);
  };
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(mark, PAUSE_MS);
  };
  const watcher = new MutationObserver(later);
  watcher.observe(root, { childList: true, subtree: true, characterData: true });
  mark();
  return () => {
    clearTimeout(timer);
    watcher.disconnect();
    CSS.highlights.delete(NAME);
  };
}

/** @param {Element | undefined} body @returns {{words: string[], ranges: Range[]}} */
function wordsOf(body) {
  /** @type {string[]} */
  const words = [];
  /** @type {Range[]} */
  const ranges = [];
  if (!body) return { words, ranges };
  const walker = document.createTreeWalker(body, NodeFilter.SHOW_TEXT);
  for (let node = walker.nextNode(); node && words.length <= MOST_WORDS; node = walker.nextNode()) {
    if (node.parentElement?.closest("button, figcaption, .katex-mathml")) continue;
    for (const found of (node.textContent ?? "").matchAll(/\S+/g)) {
      const range = new Range();
      range.setStart(node, found.index);
      range.setEnd(node, found.index + found[0].length);
      words.push(found[0]);
      ranges.push(range);
    }
  }
  return { words, ranges };
}
