import assert from "node:assert/strict";
import test from "node:test";
import { CallFailed } from "../../../src/chaku/web/static/data/api.js";
import { EventStream } from "../../../src/chaku/web/static/data/events.js";
import { Resource } from "../../../src/chaku/web/static/data/resource.js";

/** A resource whose fetches end when the test says so. */
function asked(isEmpty) {
  const calls = [];
  const resource = new Resource(() => new Promise((answer, fail) => calls.push({ answer, fail })), isEmpty);
  let changes = 0;
  resource.subscribe(() => changes++);
  return { resource, calls, changes: () => changes };
}

test("a resource is loading, then there or empty; a failed call is a problem and keeps the old data", async () => {
  const { resource, calls, changes } = asked((rows) => !rows.length);
  const loading = resource.load();
  assert.deepEqual([resource.data, resource.problem, resource.isEmpty], [null, null, false]);
  calls[0].answer([]);
  await loading;
  assert.equal(resource.isEmpty, true);
  const again = resource.load();
  calls[1].fail(new CallFailed(500, { message: "broken" }));
  await again;
  assert.deepEqual([resource.data, resource.problem, changes()], [[], { message: "broken" }, 2]);
});

test("those who load it at the same time share one call, and all find the data", async () => {
  const { resource, calls } = asked();
  const found = [resource.load(), resource.load()].map((loading) => loading.then(() => resource.data));
  calls[0].answer("once");
  assert.deepEqual(await Promise.all(found), ["once", "once"]);
  assert.equal(calls.length, 1);
});

test("an error that is no failed call is not swallowed", async () => {
  await assert.rejects(new Resource(() => Promise.reject(new TypeError("ours"))).load(), TypeError);
});

test("of several fetches under way the newest counts, in whatever order they end", async () => {
  const { resource, calls } = asked();
  const both = [resource.refresh(), resource.refresh()];
  calls[1].answer("new");
  calls[0].answer("old");
  await Promise.all(both);
  assert.equal(resource.data, "new");
  const failing = [resource.refresh(), resource.refresh()];
  calls[2].fail(new CallFailed(500, { message: "old" }));
  calls[3].answer("newer");
  await Promise.all(failing);
  assert.deepEqual([resource.data, resource.problem], ["newer", null]);
});

test("what was fetched for somebody who has left does not come back", async () => {
  const { resource, calls } = asked();
  const loading = resource.load();
  resource.clear();
  calls[0].answer("theirs");
  await loading;
  assert.equal(resource.data, null);
  resource.take("mine");
  assert.equal(calls.length, 1);
});

test("events change the data, and missed ones have it fetched again", async () => {
  const { resource, calls } = asked();
  const events = new EventStream();
  resource.live(events, { added: (data, { one }) => [...data, one], other: () => null });
  resource.take([1]);
  events.hear({ type: "added", one: 2 });
  assert.deepEqual([resource.data, calls.length], [[1, 2], 0]);
  events.hear({ type: "other" });
  events.hear({ type: "missed" });
  events.hear({ type: "unknown" });
  assert.equal(calls.length, 2);
});

test("a fetch under way never undoes what an event said meanwhile", async () => {
  const { resource, calls } = asked();
  const events = new EventStream();
  resource.live(events, { renamed: (_, { name }) => name });
  resource.take("before");
  events.hear({ type: "missed" });
  events.hear({ type: "renamed", name: "after" });
  assert.deepEqual([resource.data, calls.length], ["after", 2]);
  calls[0].answer("before");
  await new Promise(setImmediate);
  assert.equal(resource.data, "after");
  calls[1].answer("after");
  await new Promise(setImmediate);
  events.hear({ type: "renamed", name: "later" });
  assert.deepEqual([resource.data, calls.length], ["later", 2]);
});
