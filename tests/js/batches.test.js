import assert from "node:assert/strict";
import { test } from "node:test";
import { behind, find, isLost, joined, next, place, refreshed, renewed, shouldMake, waitsFor } from "../../web/js/pure/batches.js";

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

test("a fresh first page says whether there are more, where nothing is known behind it", () => {
  const known = { batches: ids("c", "b"), more: false };
  assert.deepEqual(refreshed(known, { batches: ids("g", "f"), more: true }), { batches: ids("g", "f"), more: true });
  assert.deepEqual(refreshed(known, { batches: ids("d", "c"), more: true }), { batches: ids("d", "c", "b"), more: false });
  assert.deepEqual(refreshed({ batches: [], more: undefined }, { batches: ids("a"), more: false }).more, false);
});

test("AutoGen queues only the workflow it was switched on for, and only one that makes music", () => {
  const [song, training] = [{}, {}];
  assert.equal(waitsFor({ home: song, open: song, sampler: true }), "");
  assert.equal(waitsFor({ home: song, open: training, sampler: true }), "panel.autogen.elsewhere");
  assert.equal(waitsFor({ home: song, open: null, sampler: true }), "panel.autogen.elsewhere");
  assert.equal(waitsFor({ home: song, open: song, sampler: false }), "panel.autogen.no sampler");
});

test("a run is lost that never began while nothing is in the queue", () => {
  const gone = { busy: true, asking: false, started: false, queued: 0 };
  assert.ok(isLost(gone));
  assert.ok(!isLost({ ...gone, queued: 1 }), "it waits");
  assert.ok(!isLost({ ...gone, started: true }), "it is on its way");
  assert.ok(!isLost({ ...gone, asking: true }), "the server has not taken it yet");
  assert.ok(!isLost({ ...gone, busy: false }));
});

test("older batches are found behind one that was deleted", async () => {
  const there = ["e", "c", "b", "a"];
  const asked = [];
  const ask = async (id) => {
    asked.push(id);
    const at = there.indexOf(id);
    return { batches: at < 0 ? [] : ids(...there.slice(at + 1, at + 3)), more: at >= 0 && at + 3 < there.length };
  };
  assert.deepEqual(await behind(ids("e", "c"), ask), { batches: ids("b", "a"), more: false });
  assert.deepEqual(asked.splice(0), ["c"]);
  assert.deepEqual(joined(ids("e", "d"), (await behind(ids("e", "d"), ask)).batches), ids("e", "d", "c", "b"));
  assert.deepEqual(asked.splice(0), ["d", "e"]);
  assert.deepEqual(await behind(ids("y", "z"), ask), { batches: [], more: false });
  assert.deepEqual(await behind([], ask), { batches: [], more: false });
});
