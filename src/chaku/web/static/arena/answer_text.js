/** A text that may still be growing, drawn as Markdown. */

import { html, useLayoutEffect, useRef } from "../ui/html.js";
import { MarkdownView } from "../markdown/markdown_view.js";

/** @param {{text: string, isWhole: boolean}} props */
export function AnswerText({ text, isWhole }) {
  const root = useRef(/** @type {HTMLElement | null} */ (null));
  const view = useRef(/** @type {MarkdownView | null} */ (null));
  const drawn = useRef("");
  useLayoutEffect(() => {
    view.current ??= new MarkdownView(/** @type {HTMLElement} */ (root.current));
    const before = drawn.current;
    drawn.current = text;
    if (!isWhole && before && text.length >= before.length && text.startsWith(before)) {
      if (text.length > before.length) view.current.append(text.slice(before.length));
    } else view.current.set(text, isWhole);
  }, [text, isWhole]);
  useLayoutEffect(() => () => view.current?.destroy(), []);
  return html`<div class="answer-body" ref=${root}></div>
    ${!isWhole && !text && html`<div class="waiting" aria-hidden="true"><span></span><span></span><span></span></div>`}`;
}
