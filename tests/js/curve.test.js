import assert from "node:assert/strict";
import { test } from "node:test";
import { line, nearest, range, scale, shortStep, thinned, ticks } from "../../web/js/pure/curve.js";

const point = (step, loss, mean = loss) => ({ step, loss, mean });
const many = (count, lossOf) => Array.from({ length: count }, (_, index) => point(index + 1, lossOf(index)));

test("thinning keeps the order, the ends and every extreme", () => {
  const points = many(10_000, (index) => (index === 5000 ? 9 : index === 7001 ? -1 : Math.sin(index)));
  const kept = thinned(points, 200);
  assert.ok(kept.length <= 600);
  assert.ok(kept.every((one, index) => !index || one.step > kept[index - 1].step));
  assert.ok(kept.some((one) => one.loss === 9) && kept.some((one) => one.loss === -1));
  assert.equal(kept.at(-1), points.at(-1));
  const few = many(5, (index) => index);
  assert.equal(thinned(few, 200), few);
});

test("points without a loss thin out too", () => {
  const kept = thinned(many(1000, () => null), 10);
  assert.equal(kept.length, 10);
});

test("one mad peak does not press the curve flat, but running means are all seen", () => {
  const points = many(200, (index) => (index === 100 ? 1e6 : 1 + (index % 10) / 10));
  for (const one of points) one.mean = 1.5;
  assert.ok(range(points).high < 10);
  points[150].mean = 40;
  assert.ok(range(points).high >= 40);
});

test("a range has room, never below zero for losses above it, and is none without losses", () => {
  const { low, high } = range([point(1, 1), point(2, 2)]);
  assert.ok(low > 0 && low < 1 && high > 2);
  assert.equal(range([point(1, 0.001), point(2, 5)]).low, 0);
  const flat = range([point(1, 0.5)]);
  assert.ok(flat.low < 0.5 && flat.high > 0.5);
  const zero = range([point(1, 0)]);
  assert.ok(zero.high > zero.low);
  assert.equal(range([point(1, null)]), null);
  assert.equal(range([]), null);
});

test("marks are round, inside, and few", () => {
  assert.deepEqual(ticks(0, 1, 4), [0, 0.5, 1]);
  assert.deepEqual(ticks(0.1, 0.62, 5), [0.2, 0.4, 0.6]);
  assert.deepEqual(ticks(1, 2000, 4, true), [500, 1000, 1500, 2000]);
  assert.deepEqual(ticks(1, 3, 6, true), [1, 2, 3]);
  assert.deepEqual(ticks(1, 1, 4), []);
  for (const high of [0.003, 0.7, 12, 999, 54_321]) {
    const found = ticks(0, high, 5);
    assert.ok(found.length >= 2 && found.length <= 7, String(high));
    assert.ok(found.every((value) => value >= 0 && value <= high * 1.0001));
  }
});

test("long steps are short", () => {
  assert.deepEqual([5, 800, 1500, 12000, 1234].map(shortStep), ["5", "800", "1.5k", "12k", "1234"]);
});

test("what lies outside a scale is put on its border", () => {
  const y = scale(0, 10, 100, 0);
  assert.deepEqual([0, 5, 10, 25, -5].map(y), [100, 50, 0, 0, 100]);
  assert.equal(scale(3, 3, 0, 10)(3), 5);
});

test("a line is broken where there is no number", () => {
  const same = (value) => value;
  assert.equal(line([point(1, 2), point(2, 3), point(3, null), point(4, 1)], "loss", same, same), "M1 2L2 3M4 1");
  assert.equal(line([], "loss", same, same), "");
});

test("the nearest point is found", () => {
  const points = [10, 20, 40].map((step) => point(step, 1));
  assert.deepEqual([0, 14, 16, 29, 31, 99].map((step) => nearest(points, step).step), [10, 10, 20, 20, 40, 40]);
  assert.equal(nearest([], 5), null);
});
