declare const katex: any; export default katex;
