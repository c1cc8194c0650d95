import assert from "node:assert/strict";
import test from "node:test";
import { EventParser } from "../../../src/chaku/web/static/data/sse.js";

const STREAM = ': hello\r\n\r\nid: 1\r\ndata: {"a":\r\ndata: 1}\r\n\r\nevent: x\ndata:b\n\nid: 3\rdata: c\r\r';
const EVENTS = [
  { event: "message", data: '{"a":\n1}', id: "1" },
  { event: "x", data: "b", id: "1" },
  { event: "message", data: "c", id: "3" },
];

test("events are read as the HTML standard says: comments, ids that stay, several data lines, three line ends", () => {
  assert.deepEqual(new EventParser().push(STREAM), EVENTS);
});

test("however the stream is cut, the events are the same", () => {
  for (let size = 1; size < STREAM.length; size++) {
    const parser = new EventParser();
    const got = [];
    for (let at = 0; at < STREAM.length; at += size) got.push(...parser.push(STREAM.slice(at, at + size)));
    assert.deepEqual(got, EVENTS, `pieces of ${size}`);
  }
});

test("an event that was not ended is not one", () => {
  assert.deepEqual(new EventParser().push("data: half\n"), []);
});
