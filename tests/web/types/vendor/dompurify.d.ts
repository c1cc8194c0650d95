declare const DOMPurify: { sanitize(html: string, config: object): DocumentFragment };
export default DOMPurify;
