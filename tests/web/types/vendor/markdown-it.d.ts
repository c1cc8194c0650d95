export interface Token {
  type: string;
  tag: string;
  info: string;
  nesting: -1 | 0 | 1;
  hidden: boolean;
  children: Token[] | null;
  content: string;
  meta: any;
  block: boolean;
  map: [number, number] | null;
  attrGet(name: string): string | null;
  attrSet(name: string, value: string): void;
}
export interface Renderer {
  rules: Record<string, Rule | undefined>;
  renderToken(tokens: Token[], index: number, options: object): string;
}
export type Rule = (tokens: Token[], index: number, options: object, env: object, self: Renderer) => string;
export class StateInline {
  src: string;
  pos: number;
  posMax: number;
  env: Record<string, any>;
  scanDelims(start: number, canSplitWord: boolean): { can_open: boolean; can_close: boolean; length: number };
  push(type: string, tag: string, nesting: number): Token;
}
export interface StateBlock {
  src: string;
  line: number;
  bMarks: number[];
  eMarks: number[];
  tShift: number[];
  sCount: number[];
  blkIndent: number;
  env: Record<string, any>;
  tokens: Token[];
  md: MarkdownIt;
  push(type: string, tag: string, nesting: number): Token;
}
export interface StateCore {
  tokens: Token[];
}
type InlineRule = (state: StateInline, silent: boolean) => boolean;
type BlockRule = (state: StateBlock, startLine: number, endLine: number, silent: boolean) => boolean;
export class MarkdownIt {
  constructor(options: { html: boolean; linkify: boolean; maxNesting?: number });
  renderer: Renderer;
  utils: { escapeHtml(text: string): string };
  linkify: { set(options: Record<string, boolean>): void };
  inline: { ruler: { before(name: string, own: string, rule: InlineRule): void }; State: typeof StateInline };
  block: {
    ruler: { before(name: string, own: string, rule: BlockRule, options: { alt: string[] }): void };
    parse(source: string, md: MarkdownIt, env: object, tokens: Token[]): void;
  };
  core: { ruler: { after(name: string, own: string, rule: (state: StateCore) => void): void } };
  validateLink(url: string): boolean;
  options: object;
  parse(source: string, env: object): Token[];
}
export default MarkdownIt;
