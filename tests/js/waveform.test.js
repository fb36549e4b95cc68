import assert from "node:assert/strict";
import { test } from "node:test";
import { bars, path, seekTo } from "../../web/js/pure/waveform.js";

test("bars keep the loudest moment of each part, whatever the lengths", () => {
  assert.deepEqual(bars([0, 100, 50, 25], 2), [1, 0.5]);
  assert.deepEqual(bars([100], 3), [1, 1, 1]);
  assert.deepEqual(bars([], 3), [0, 0, 0]);
  assert.deepEqual(bars([900, -4], 2), [1, 0]);
  for (const count of [1, 7, 160, 400]) assert.equal(bars(new Array(313).fill(3), count).length, count);
});

test("the path draws every bar within the box", () => {
  const drawn = path([0, 0.5, 1], 40);
  assert.equal(drawn.match(/M/g).length, 3);
  const numbers = [...drawn.matchAll(/M([\d.]+) ([\d.]+)h\.6v([\d.]+)/g)].map((hit) => hit.slice(1).map(Number));
  for (const [, top, height] of numbers) assert.ok(top >= 0 && top + height <= 40 && height > 0);
});

test("a click seeks within the music", () => {
  assert.equal(seekTo(150, 100, 100, 60), 30);
  assert.equal(seekTo(0, 100, 100, 60), 0);
  assert.equal(seekTo(999, 100, 100, 60), 60);
  assert.equal(seekTo(5, 0, 0, 60), 0);
});
