import assert from "node:assert/strict";
import test from "node:test";
import { Battle } from "../../../src/chaku/web/static/arena/battle.js";

test("a vote can be undone for the seconds that the server says, whatever the browser's clock says", (context) => {
  for (const hours of [-1, 1]) {
    context.mock.timers.enable({ apis: ["Date"], now: Date.now() + hours * 3_600_000 });
    const battle = new Battle({ sides: {}, revealed: { undo_s: 9.5 } });
    assert.equal(battle.undoLeftS, 10);
    battle._take({ revealed: null });
    assert.ok(battle.undoLeftS <= 0);
    context.mock.timers.reset();
  }
});
