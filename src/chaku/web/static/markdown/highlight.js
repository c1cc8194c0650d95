/** Colours code, one language at a time: each grammar is loaded when its first block is seen. Runs in a worker. */

import { withVisibleControls } from "../ui/format.js";
import { languageOf } from "./blocks.js";

const LIMIT = 400_000; // characters; beyond that code stays plain
const MAX_SPANS = 10_000; // beyond that the rest stays plain

/** @type {Record<string, string>} */
const ALIASES = {
  "c++": "cpp", cc: "cpp", h: "c", hpp: "cpp", cs: "csharp", "c#": "csharp", console: "shell", docker: "dockerfile",
  "f#": "fsharp", golang: "go", hs: "haskell", html: "xml", js: "javascript", jsx: "javascript", json5: "json", jsonl: "json",
  kt: "kotlin", make: "makefile", md: "markdown", mjs: "javascript", objc: "objectivec", pl: "perl", ps1: "powershell",
  py: "python", python3: "python", pycon: "python-repl", rb: "ruby", rs: "rust", sh: "bash", svg: "xml", tex: "latex",
  toml: "ini", ts: "typescript", tsx: "typescript", vb: "vbnet", vue: "xml", yml: "yaml", zsh: "bash",
};
/** The grammars that vendor.toml brings. */
const KNOWN = new Set([
  "ada", "armasm", "bash", "c", "clojure", "cmake", "cpp", "csharp", "css", "dart", "diff", "dockerfile", "elixir", "elm",
  "erlang", "fortran", "fsharp", "go", "graphql", "groovy", "haskell", "http", "ini", "java", "javascript", "json", "julia",
  "kotlin", "latex", "less", "lisp", "lua", "makefile", "markdown", "matlab", "nginx", "nix", "objectivec", "ocaml", "perl",
  "php", "php-template", "powershell", "prolog", "properties", "protobuf", "python", "python-repl", "r", "ruby", "rust",
  "scala", "scheme", "scss", "shell", "sql", "swift", "tcl", "typescript", "vbnet", "verilog", "vhdl", "vim", "wasm",
  "x86asm", "xml", "yaml",
]);
/** What a grammar needs beside itself. @type {Record<string, string[]>} */
const EMBEDDED = { xml: ["javascript", "css"], markdown: ["xml"], "python-repl": ["python"], shell: ["bash"], php: ["xml"] };

/** @type {Map<string, Promise<boolean>>} */
const grammars = new Map();
/** @type {any} */
let core = null;

/** @param {string} language @returns {Promise<boolean>} whether it is here now */
function load(language) {
  const known = grammars.get(language);
  if (known) return known;
  const loading = (async () => {
    core ??= (await import("../vendor/highlight/core.js")).default;
    await Promise.all((EMBEDDED[language] ?? []).map(load));
    core.registerLanguage(language, (await import(`../vendor/highlight/languages/${language}.js`)).default);
    return true;
  })().catch(() => false); // a language that nobody has a grammar for stays plain
  grammars.set(language, loading);
  return loading;
}

/**
 * Code as text and the classes that colour it: [text, classes, text, classes, …].
 * @param {string} code
 * @param {string} info
 * @param {() => void} onBegin  called when the grammar is here
 * @returns {Promise<string[] | null>} null when it stays plain
 */
export async function coloured(code, info, onBegin) {
  const named = languageOf(info);
  const language = ALIASES[named] ?? named;
  if (code.length > LIMIT || !KNOWN.has(language) || !(await load(language))) return null;
  onBegin();
  return spansOf(core.highlight(withVisibleControls(code), { language, ignoreIllegals: true }).value);
}

/** @type {Record<string, string>} */
const ENTITIES = { "&amp;": "&", "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#x27;": "'" };

/**
 * The HTML that highlight.js writes, <span class="…"> and text, taken apart.
 * @param {string} html
 */
export function spansOf(html) {
  /** @type {string[]} */
  const spans = [];
  /** @type {string[]} */
  const open = [];
  for (const [token, name] of html.matchAll(/<span class="([^"]*)">|<\/span>|[^<]+/g)) {
    if (name !== undefined) open.push(name);
    else if (token === "</span>") open.pop();
    else if (spans.length > 2 * MAX_SPANS && !spans.at(-1)) spans[spans.length - 2] += unescaped(token);
    else spans.push(unescaped(token), spans.length > 2 * MAX_SPANS ? "" : open.join(" "));
  }
  return spans;
}

/** @param {string} text */
function unescaped(text) {
  return text.replace(/&(?:amp|lt|gt|quot|#x27);/g, (entity) => ENTITIES[entity]);
}
