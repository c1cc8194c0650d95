/** The style of an exported chat: the page's, as far as a text to be read needs it. */

export const STYLE = `
:root { color-scheme: light dark; --soft: light-dark(#f2f0ec, #2a2725); --line: light-dark(#e4e1dc, #35322e); --ink-2: light-dark(#625d56, #aca59b); }
body { max-width: 72ch; margin: 2rem auto; padding: 0 1rem; font: 1rem/1.6 system-ui, sans-serif; background: light-dark(#fff, #1a1816); color: light-dark(#22201d, #ece8e2); overflow-wrap: anywhere; }
article { margin: 2rem 0; }
article h2 { font-size: 0.9375rem; margin-bottom: 0.3rem; }
small, summary, figcaption { color: var(--ink-2); font-size: 0.8125rem; font-weight: 400; }
.plain { white-space: pre-wrap; }
.user .plain { padding: 0.6rem 1rem; border-radius: 1rem; background: var(--soft); }
img { max-width: 100%; }
code, pre { font: 0.875em/1.55 ui-monospace, monospace; }
p code, li code, td code { padding: 0.1em 0.3em; border-radius: 4px; background: var(--soft); }
figure { margin: 1rem 0; border: 1px solid var(--line); border-radius: 10px; }
figcaption { padding: 0.2rem 0.9rem; border-bottom: 1px solid var(--line); }
figure pre { margin: 0; padding: 0.75rem 0.9rem; overflow-x: auto; white-space: pre; }
.table-frame, .math.display { overflow-x: auto; }
.math.display { display: block; text-align: center; }
table { border-collapse: collapse; }
th, td { padding: 0.4rem 0.8rem; border-bottom: 1px solid var(--line); text-align: start; vertical-align: top; }
.align-center { text-align: center; } .align-right { text-align: right; }
blockquote { margin: 0; padding-inline-start: 1rem; border-inline-start: 3px solid var(--line); color: var(--ink-2); }
li.task { list-style-type: "☐  "; } li.task.done { list-style-type: "☑  "; }
.note { display: flex; gap: 0.5rem; font-size: 0.875rem; } .note::before { content: attr(data-note) "."; } .note p { margin: 0; }
.hljs-comment, .hljs-quote, .hljs-meta { color: light-dark(#6b665f, #9a938a); font-style: italic; }
.hljs-keyword, .hljs-selector-tag, .hljs-literal, .hljs-section, .hljs-doctag { color: light-dark(#9a2c6a, #e79bc6); }
.hljs-string, .hljs-regexp, .hljs-addition, .hljs-template-tag { color: light-dark(#2b6a3f, #9ccfa6); }
.hljs-number, .hljs-symbol, .hljs-bullet, .hljs-attr, .hljs-variable, .hljs-template-variable { color: light-dark(#8a4a00, #e7b27a); }
.hljs-title, .hljs-name, .hljs-type, .hljs-built_in, .hljs-link { color: light-dark(#1f5fa8, #8fbbea); }
.hljs-deletion { color: light-dark(#b3261e, #f2938a); }
`;
