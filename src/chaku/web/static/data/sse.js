/** Reads server-sent events out of text that arrives in arbitrary pieces. */

/** @typedef {{event: string, data: string, id: string}} ServerEvent */

export class EventParser {
  constructor() {
    this._buffer = "";
    this._endedInReturn = false;
    /** @type {string[]} */
    this._data = [];
    this._event = "";
    this._id = "";
  }

  /**
   * The events that this piece completes, in order.
   * @param {string} text
   * @returns {ServerEvent[]}
   */
  push(text) {
    if (this._endedInReturn && text.startsWith("\n")) text = text.slice(1); // a CRLF cut in two
    if (text) this._endedInReturn = text.endsWith("\r");
    const lines = (this._buffer + text).split(/\r\n|\n|\r/);
    this._buffer = lines.pop() ?? "";
    /** @type {ServerEvent[]} */
    const events = [];
    for (const line of lines) {
      if (line === "") {
        if (this._data.length) events.push({ event: this._event || "message", data: this._data.join("\n"), id: this._id });
        this._data = [];
        this._event = "";
      } else this._field(line);
    }
    return events;
  }

  /** @param {string} line */
  _field(line) {
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this._data.push(value);
    else if (name === "event") this._event = value;
    else if (name === "id" && !value.includes("\0")) this._id = value;
  }
}
