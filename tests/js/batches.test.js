import assert from "node:assert/strict";
import { test } from "node:test";
import { find, joined, next, place, renewed, shouldMake } from "../../web/js/pure/batches.js";

const ids = (...names) => names.map((id) => ({ id }));

test("people count from the oldest", () => {
  assert.deepEqual(place(0, 5), { position: 5, count: 5 });
  assert.deepEqual(place(4, 5), { position: 1, count: 5 });
  assert.deepEqual(place(0, 0), { position: 0, count: 0 });
});

test("next shows a newer batch, makes one, or waits", () => {
  assert.equal(next({ index: 2, count: 5, queued: 0 }), "show");
  assert.equal(next({ index: 0, count: 5, queued: 0 }), "make");
  assert.equal(next({ index: 0, count: 5, queued: 1 }), "wait");
  assert.equal(next({ index: 0, count: 0, queued: 0 }), "make");
});

test("AutoGen keeps one batch ahead, and no more", () => {
  const on = { autogen: true, index: 0, count: 3, queued: 0 };
  assert.ok(shouldMake(on));
  assert.ok(!shouldMake({ ...on, index: 1 }));
  assert.ok(!shouldMake({ ...on, queued: 1 }));
  assert.ok(!shouldMake({ ...on, autogen: false }));
  assert.ok(!shouldMake({ ...on, count: 0 }));
});

test("pages join, and a fresh first page keeps what is behind it", () => {
  assert.deepEqual(joined(ids("c", "b"), ids("b", "a")), ids("c", "b", "a"));
  assert.deepEqual(renewed(ids("c", "b", "a"), ids("d", "c")), ids("d", "c", "b", "a"));
  assert.deepEqual(renewed(ids("c", "b"), ids("f", "e")), ids("f", "e"));
  assert.deepEqual(renewed(ids("c"), []), []);
  assert.equal(find(ids("c", "b"), "b"), 1);
  assert.equal(find(ids("c"), "gone"), 0);
});
