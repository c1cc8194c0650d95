import assert from "node:assert/strict";
import test from "node:test";
import { Branches, imagesOf, pathTo, textOf } from "../../../src/chaku/web/static/chat/tree.js";

const message = (id, parent_id, role) => [id, { id, parent_id, role, content: id, state: "complete", created_at: id }];
const tree = new Map([
  message("1", null, "user"),
  message("2", "1", "assistant"),
  message("3", "1", "assistant"),
  message("4", "3", "user"),
  message("5", "4", "assistant"),
  message("6", null, "user"),
]);
const branches = new Branches(tree);
const ids = (messages) => messages.map((m) => m.id);

test("the path leads from the root to the leaf", () => {
  assert.deepEqual(ids(pathTo(tree, "5")), ["1", "3", "4", "5"]);
  assert.deepEqual(pathTo(tree, null), []);
  assert.deepEqual(pathTo(tree, "gone"), []);
});

test("a circle ends the walk", () => {
  const circle = new Map([message("a", "b", "user"), message("b", "a", "user")]);
  assert.equal(pathTo(circle, "a").length, 2);
  assert.ok(["a", "b"].includes(new Branches(circle).newestLeaf("a")));
});

test("siblings are the alternatives to a message, oldest first", () => {
  assert.deepEqual([ids(branches.siblingsOf(tree.get("3")).all), branches.siblingsOf(tree.get("3")).index], [["2", "3"], 1]);
  assert.deepEqual(ids(branches.siblingsOf(tree.get("1")).all), ["1", "6"]);
});

test("a branch is taken up where it was left", () => {
  assert.equal(branches.newestLeaf("1"), "5");
  assert.equal(branches.newestLeaf("2"), "2");
});

test("a message's text and images are told apart", () => {
  const content = [{ type: "text", text: "a" }, { type: "image_url", image_url: { url: "data:x" } }, { type: "text", text: "b" }];
  assert.deepEqual([textOf(content), imagesOf(content), textOf("c"), imagesOf("c")], ["a\n\nb", ["data:x"], "c", []]);
});

test("what follows a message is counted on all branches", () => {
  assert.deepEqual(["1", "3", "5", "gone"].map((id) => branches.numBelow(id)), [4, 2, 0, 0]);
});
