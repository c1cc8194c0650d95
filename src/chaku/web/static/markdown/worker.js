/** Runs in a worker: reads long Markdown and colours code, where no work of theirs can hold up the page. */

import { coloured } from "./highlight.js";
import { piecesOf } from "./markdown.js";

/** @type {Record<string, (request: any) => any>} */
const WORK = {
  markdown: ({ source, env }) => ({ pieces: piecesOf(source, env), env }),
  code: ({ code, info }) => coloured(code, info, () => postMessage({ isBegun: true })),
};

addEventListener("message", async ({ data }) => {
  if (data.kind !== "code") postMessage({ isBegun: true }); // a grammar is loaded before colouring begins
  try {
    postMessage({ result: await WORK[data.kind](data) });
  } catch {
    postMessage({ result: null }); // text that the library can't read stays as it was written
  }
});
