/** Which words of two texts differ: the longest common subsequence of their words. Pure. */

export const MOST_WORDS = 2_000; // compared of each text: the work grows with their product

/**
 * The places of the words that have no partner in the other text, in the order of the texts.
 * @param {string[]} first @param {string[]} second
 * @returns {{first: number[], second: number[]}}
 */
export function differentWords(first, second) {
  const a = first.slice(0, MOST_WORDS);
  const b = second.slice(0, MOST_WORDS);
  let start = 0;
  while (start < a.length && start < b.length && a[start] === b[start]) start++;
  let end = 0;
  while (end < a.length - start && end < b.length - start && a[a.length - 1 - end] === b[b.length - 1 - end]) end++;
  const rows = a.length - start - end;
  const columns = b.length - start - end;
  const width = columns + 1;
  const common = new Uint16Array((rows + 1) * width); // of what follows from here on
  for (let i = rows - 1; i >= 0; i--) {
    for (let j = columns - 1; j >= 0; j--) {
      const skip = Math.max(common[(i + 1) * width + j], common[i * width + j + 1]);
      common[i * width + j] = a[start + i] === b[start + j] ? common[(i + 1) * width + j + 1] + 1 : skip;
    }
  }
  /** @type {{first: number[], second: number[]}} */
  const different = { first: [], second: [] };
  let i = 0;
  let j = 0;
  while (i < rows || j < columns) {
    if (i < rows && j < columns && a[start + i] === b[start + j]) (i++, j++);
    else if (j >= columns || (i < rows && common[(i + 1) * width + j] >= common[i * width + j + 1])) different.first.push(start + i++);
    else different.second.push(start + j++);
  }
  return different;
}
